"""Images of intact items with synthetic defects, so that the value ranges of int8 cover real defects too."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs

_PIECES = 12
_PIECE_SHARES = (0.04, 0.29)  # the shortest and longest side of a piece, as shares of the image's side
_PIECE_GAINS = (0.3, 1.8)  # brightness of a moved piece
_LINES = 10
_LINE_WIDTHS_PX = (1, 9)


def synthetic_defects(images: ModelInputs, count: int) -> ModelInputs:
    """Views (count, H, W, 3) of images (N, H, W, 3), with moved pieces or lines in turn, rotated by quarter turns (if
    H and W differ, by half turns).

    Equal images in the same order give equal views. If there are more images than views, every n-th image is used.
    """
    positions = np.linspace(0, len(images), count, endpoint=False).astype(int) if len(images) > count else range(count)
    views = np.empty((count, *images.shape[1:]), np.uint8)
    for index, position in enumerate(positions):
        image = images[position % len(images)].copy()
        rng = np.random.default_rng(index)
        _move_pieces(image, rng) if index % 2 == 0 else _draw_lines(image, rng)
        quarter_turns = index // 2 % 4
        views[index] = np.rot90(image, quarter_turns if image.shape[0] == image.shape[1] else 2 * quarter_turns)
    return views


def _move_pieces(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Copy pieces of the image to other places, darker or brighter, in place."""
    (height_px, width_px), intact = image.shape[:2], image.copy()
    shortest_px, longest_px = (int(share * min(height_px, width_px)) for share in _PIECE_SHARES)
    for _ in range(_PIECES):
        height, width = rng.integers(max(1, shortest_px), longest_px, 2)
        (top, left), (to_top, to_left) = rng.integers(0, (height_px - longest_px, width_px - longest_px), (2, 2))
        piece = intact[top : top + height, left : left + width] * rng.uniform(*_PIECE_GAINS)
        image[to_top : to_top + height, to_left : to_left + width] = piece.clip(0, 255)


def _draw_lines(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw straight lines of random colors, in place."""
    for _ in range(_LINES):
        color: Any = rng.integers(0, 256, 3).tolist()
        start, end = rng.integers(0, image.shape[1::-1], (2, 2)).tolist()
        cv2.line(image, start, end, color, int(rng.integers(*_LINE_WIDTHS_PX)))
