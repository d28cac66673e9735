"""Reference views: mirrored, turned and zoomed copies of the reference images, for references of few images.

Their patches are rows of the bank like those of the images. They belong to the image that they were made of: a score
that leaves an image out leaves its views out too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.reference import Calibration
from patchserve_server.domain.reference_options import ReferenceOptions, ReferenceViews

MAX_AUTO_IMAGES: Final = 4
"""With more images, the other images show what views would show."""
_ZOOMS: Final = ((), (0.85,), (0.85, 1.15))
"""The factors for one, two and three scales. Below 1, the mirrored border of the image fills the rest."""


@dataclass(frozen=True, slots=True)
class View:
    """How a view is made of an image. The default is the image itself."""

    mirror: bool = False  # left and right exchanged
    quarter_turns: int = 0  # counter-clockwise; an odd number only for square images
    zoom: float = 1.0

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view (H, W, 3) of an image (H, W, 3)."""
        turned = np.rot90(image[:, ::-1] if self.mirror else image, self.quarter_turns)
        return turned if self.zoom == 1 else _zoomed(turned, self.zoom)


def _zoomed(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, factor)
    size_px, border = (width, height), cv2.BORDER_REFLECT_101
    return cv2.warpAffine(image, matrix, size_px, borderMode=border).astype(np.uint8, copy=False)


def may_have_views(options: ReferenceOptions) -> bool:
    """Whether a bank with these options may have rows of views."""
    return options.views is not ReferenceViews.NONE or options.scales > 1


def takes_turned_views(options: ReferenceOptions, *, images: int) -> bool:
    """Whether to make mirrored and turned views of so many images; for AUTO: whether to try them."""
    if options.views is ReferenceViews.AUTO:
        return images <= MAX_AUTO_IMAGES and options.search_radius is None and options.input.tile_px is None
    return options.views is ReferenceViews.ALL


def views_of(*, turned: bool, scales: int, is_square: bool) -> Sequence[View]:
    """The views to make of each image, the image itself first.

    Args:
        turned: with the mirrored and turned ones: 8 of a square image, 4 of any other, because they keep the shape.
        scales: 1 to 3: with so many sizes of the items.
        is_square: whether H and W are equal.
    """
    views = [View()]
    if turned:
        turns = range(4) if is_square else (0, 2)
        views = [View(mirror, quarter_turns) for mirror in (False, True) for quarter_turns in turns]
    return [*views, *(View(zoom=factor) for factor in _ZOOMS[scales - 1])]


def with_views(inputs: ModelInputs, views: Sequence[View]) -> ModelInputs:
    """All views of each of the inputs (N, H, W, 3): (N * V, H, W, 3), the views of an image next to each other."""
    return inputs if len(views) == 1 else np.stack([view.of(image) for image in inputs for view in views])


def spreads_no_more(calibration: Calibration, other: Calibration) -> bool:
    """Whether normal scores differ from each other no more than those of the other calibration do.

    The more they differ, the farther above most of them a threshold has to be for the same false alarms. Compared are
    standard deviations as shares of the mean; a difference within two standard errors of a standard deviation does not
    count, because chance alone often makes it as large.
    """
    normal, standard_error = calibration.normal_scores, 1 / math.sqrt(2 * calibration.normal_scores.count)
    return normal.relative_stddev <= other.normal_scores.relative_stddev * (1 + 2 * standard_error)
