"""What a reference was built from: a line, and a table of its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from patchserve_client import ReferenceImage

TITLES = ("image", "format", "pixels", "bytes")


def summary(images: Sequence[ReferenceImage]) -> str:
    """Such as "8 JPEG of 1001 x 712 px, 2 PNG of 640 x 480 to 1920 x 1080 px"."""
    by_format: dict[str, list[ReferenceImage]] = defaultdict(list)
    for image in images:
        by_format[_format(image)].append(image)
    return ", ".join(f"{len(group)} {name}{_sizes(group)}" for name, group in by_format.items())


def cells(images: Sequence[ReferenceImage]) -> list[list[str]]:
    """A row for each image: its name or number, format, pixels and bytes."""
    return [
        [image.name or f"number {number}", _format(image), _pixels(image) or "-", str(image.size_bytes or "-")]
        for number, image in enumerate(images, 1)
    ]


def _format(image: ReferenceImage) -> str:
    return image.media_type.removeprefix("image/").upper() or "unknown"


def _pixels(image: ReferenceImage) -> str:
    return f"{image.width_px} x {image.height_px}" if image.width_px else ""


def _sizes(images: Sequence[ReferenceImage]) -> str:
    by_area = sorted(images, key=lambda image: image.width_px * image.height_px)
    smallest, largest = _pixels(by_area[0]), _pixels(by_area[-1])
    if not largest:
        return ""
    return f" of {smallest} px" if smallest == largest else f" of {smallest} to {largest} px"
