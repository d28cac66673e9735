"""Views of intact images with damage drawn in: what int8 must have room for, and no reference shows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs

_PIECES = 12
_PIECE_SHARES = (0.04, 0.29)  # of the side
_LINES = 10
_LINE_WIDTHS_PX = (1, 9)


def synthetic_defects(images: ModelInputs, count: int) -> ModelInputs:
    """Views (count, S, S, 3) of images (N, S, S, 3) in turn: pieces moved, or lines drawn, and quarter turns.

    The same images in the same order give the same views. Of more images than views, evenly spread ones are taken.
    """
    taken = np.linspace(0, len(images), count, endpoint=False).astype(int) if len(images) > count else range(count)
    views = np.empty((count, *images.shape[1:]), np.uint8)
    for at, position in enumerate(taken):
        image = images[position % len(images)].copy()
        rng = np.random.default_rng(at)
        _move_pieces(image, rng) if at % 2 == 0 else _draw_lines(image, rng)
        views[at] = np.rot90(image, at // 2 % 4)
    return views


def _move_pieces(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Pieces of the image in other places, darker or brighter."""
    size_px, intact = len(image), image.copy()
    shortest, longest = (int(share * size_px) for share in _PIECE_SHARES)
    for _ in range(_PIECES):
        height, width = rng.integers(max(1, shortest), longest, 2)
        (top, left), (to_top, to_left) = rng.integers(0, size_px - longest, (2, 2))
        piece = intact[top : top + height, left : left + width] * rng.uniform(0.3, 1.8)
        image[to_top : to_top + height, to_left : to_left + width] = piece.clip(0, 255)


def _draw_lines(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Straight lines of any color across the image."""
    for _ in range(_LINES):
        color: Any = rng.integers(0, 256, 3).tolist()
        begin, end = rng.integers(0, len(image), (2, 2)).tolist()
        cv2.line(image, begin, end, color, int(rng.integers(*_LINE_WIDTHS_PX)))
