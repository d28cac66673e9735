"""What to expect of a reference with few images. The figures are measured: docs/accuracy.md, Few images."""

from __future__ import annotations

from patchserve_client import CalibrationMethod, ReferenceInfo
from patchserve_client._counted import counted

_FOR_A_THRESHOLD = 3  # with fewer, no image can be compared with others
_RECOMMENDED = 8


def few_images_note(reference: ReferenceInfo) -> str | None:
    """A note if the threshold is not based on enough images."""
    count = reference.image_count
    if reference.calibration.method is CalibrationMethod.AUGMENTED_VIEWS:
        reason = f"{counted(count, 'image')} cannot show how intact items differ."
        if count >= _FOR_A_THRESHOLD:
            reason = f"Fewer than {_FOR_A_THRESHOLD} of {count} images differ, or the coreset keeps too few patches."
        return (
            f"Note: {reason} The threshold comes from altered views. That is right if every item looks the same to a "
            "fixed camera; otherwise expect nearly every item to be called anomalous. "
            f"Load {_FOR_A_THRESHOLD} different images at least, better {_RECOMMENDED} or more (--append adds some). "
            "--profile and --search-radius do not make up for missing images."
        )
    if count >= _RECOMMENDED:
        return None
    return (
        f"Note: With {counted(count, 'image')}, the threshold is a rough estimate: if your items vary, expect up to "
        "a quarter of the intact ones to be called anomalous, or half of the damage to be missed. "
        f"Load {_RECOMMENDED} images or more (--append adds some). `patchserve evaluate` measures it, and "
        f"`patchserve reference tune {reference.reference_id}` moves it."
    )
