"""Where the images of a contact sheet are, so that little of its page stays empty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_PAGE_ASPECT = 1.4  # width / height
_MIN_PAGE_PX, _MAX_PAGE_PX, _PAGE_STEP_PX = 900, 3200, 20
_IMAGE_HEIGHT_PX = 220
_MIN_IMAGE_WIDTH_PX, _MAX_IMAGE_WIDTH_PX = 110, 420
GAP_PX, MARGIN_PX, _CAPTION_PX, _HEADER_PX = 4, 20, 44, 84
_ROW_PX = _CAPTION_PX + _IMAGE_HEIGHT_PX + MARGIN_PX


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an image and its overlay side by side, below their caption, in pixels of the page."""

    left_px: int
    top_px: int
    image_px: tuple[int, int]  # (width, height) of either

    @property
    def width_px(self) -> int:
        return 2 * self.image_px[0] + GAP_PX

    @property
    def image_top_px(self) -> int:
        return self.top_px + _CAPTION_PX


@dataclass(frozen=True, slots=True)
class Page:
    """Pairs in rows from the top left."""

    places: tuple[Place, ...]

    @classmethod
    def of(cls, images_px: Sequence[tuple[int, int]]) -> Page:
        """The page for images shown in these sizes (`shown_size`) with the best shape."""
        widest_px = max(2 * width_px + GAP_PX for width_px, _ in images_px)
        limits_px = range(max(_MIN_PAGE_PX, widest_px), _MAX_PAGE_PX, _PAGE_STEP_PX)
        return min((cls._filled(images_px, limit_px) for limit_px in limits_px), key=lambda page: page.ugliness)

    @classmethod
    def _filled(cls, images_px: Sequence[tuple[int, int]], limit_px: int) -> Page:
        """Rows of at most `limit_px`, without the margins."""
        places, left_px, top_px = [], 0, _HEADER_PX
        for image_px in images_px:
            if left_px + 2 * image_px[0] + GAP_PX > limit_px:
                left_px, top_px = 0, top_px + _ROW_PX
            places.append(Place(MARGIN_PX + left_px, top_px, image_px))
            left_px += places[-1].width_px + MARGIN_PX
        return cls(tuple(places))

    @property
    def size_px(self) -> tuple[int, int]:
        right_px = max(place.left_px + place.width_px for place in self.places)
        return max(right_px, _MIN_PAGE_PX) + MARGIN_PX, self.places[-1].top_px + _ROW_PX

    @property
    def ugliness(self) -> float:
        """How far the page is from a pleasant shape, and the share that stays empty; 0: as it should be."""
        width_px, height_px = self.size_px
        used_px = sum((place.width_px + MARGIN_PX) * _ROW_PX for place in self.places)
        empty = 1 - used_px / (width_px * (height_px - _HEADER_PX))
        return abs(math.log(width_px / height_px / _PAGE_ASPECT)) / 2 + empty


def shown_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """The size in which an image is shown: as high as the row, but not too wide."""
    width_px, height_px = size_px
    scale = min(_IMAGE_HEIGHT_PX / height_px, _MAX_IMAGE_WIDTH_PX / width_px)
    return max(_MIN_IMAGE_WIDTH_PX, round(width_px * scale)), max(1, round(height_px * scale))
