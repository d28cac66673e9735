"""Reference views: mirrored, turned and zoomed copies of the reference images, for references of few images.

They are rows of the bank like those of the images themselves, and belong to the image that they were made of: a score that
leaves an image out leaves its views out too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs

View: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Makes a view (H, W, 3) of an image (H, W, 3)."""

_ZOOMS: Final = ((), (0.85,), (0.85, 1.15))
"""The factors for one, two and three scales. Below 1, the mirrored border of the image fills the rest."""


def views_of(*, turned: bool, scales: int, is_square: bool) -> Sequence[View]:
    """The views to make of each image, the image itself first.

    Args:
        turned: with the mirrored and turned ones: 8 of a square image, 4 of any other, because they keep the shape.
        scales: 1 to 3: with so many sizes of the items.
        is_square: whether H and W are equal.
    """
    views: list[View] = [_turn(mirror=False, quarters=0)]
    if turned:
        quarters = range(4) if is_square else (0, 2)
        views = [_turn(mirror=mirror, quarters=count) for mirror in (False, True) for count in quarters]
    return [*views, *(partial(_zoom, factor=factor) for factor in _ZOOMS[scales - 1])]


def with_views(inputs: ModelInputs, views: Sequence[View]) -> ModelInputs:
    """Each of the inputs (N, H, W, 3) as all its views: (N * V, H, W, 3), the views of an image next to each other."""
    if len(views) == 1:
        return inputs
    return np.stack([view(image) for image in inputs for view in views])


def _turn(*, mirror: bool, quarters: int) -> View:
    def view(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.rot90(image[:, ::-1] if mirror else image, quarters)

    return view


def _zoom(image: NDArray[np.uint8], *, factor: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, factor)
    zoomed = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return zoomed.astype(np.uint8, copy=False)
