"""The drift of a reference in words."""

from __future__ import annotations

from typing import Final

from patchserve_client import Drift, DriftState
from patchserve_client._counted import counted

_WORDS: Final = {
    DriftState.NONE: "none",
    DriftState.MORE_DAMAGE: "more damage: more images than false alarms explain score above all normal scores",
    DriftState.SCENE_CHANGED: "scene changed: most images differ from the reference's own (light, camera, product)",
}


def drift_text(drift: Drift | None) -> str:
    """Such as "none, in the last 256 images (shift 0.52, outliers 1 %)"; None: the server is older than drift."""
    if drift is None:
        return "not known"
    if drift.state is DriftState.TOO_FEW_IMAGES:
        return f"not known: too few images ({counted(drift.image_count, 'recent one')})"
    words = _WORDS.get(drift.state, "unknown") if drift.state is not None else "unknown"
    shift = "-" if drift.shift is None else f"{drift.shift:.2f}"
    outliers = "-" if drift.outlier_share is None else f"{drift.outlier_share:.0%}".replace("%", " %")
    since = "" if drift.since is None else f", since {drift.since:%Y-%m-%d %H:%M:%SZ}"
    return f"{words}; in the last {counted(drift.image_count, 'image')} (shift {shift}, outliers {outliers}){since}"
