"""Random textures."""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""Floats; comments state the axes."""


def fractal(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4) -> Array:
    """Smooth noise of mean 0 and standard deviation 1: (H, W). `cell_px` is the size of its largest features."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
        grid = rng.standard_normal((rows, columns)).astype(np.float32)
        size = (math.ceil(columns * cell), math.ceil(rows * cell))
        total += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)[:height, :width] * 0.5**octave
    return (total - total.mean()) / total.std()


def fibres(rng: np.random.Generator, shape: tuple[int, int], count: int, length_px: float) -> Array:
    """Short bent strokes of random direction, mostly along x, as in kraft paper: (H, W), 0..1."""
    canvas = np.zeros(shape, np.uint8)
    starts = rng.uniform(0, 1, (count, 2)) * (shape[1], shape[0])
    angles = rng.normal(0, 0.7, count)
    lengths = rng.gamma(3, length_px / 3, count)
    bends = rng.normal(0, 0.5, count)
    tones = rng.uniform(60, 255, count)
    for start, angle, length, bend, tone in zip(starts, angles, lengths, bends, tones, strict=True):
        middle = start + 0.5 * length * np.array((math.cos(angle), math.sin(angle)))
        end = middle + 0.5 * length * np.array((math.cos(angle + bend), math.sin(angle + bend)))
        points = np.round(np.array([start, middle, end]) * 16).astype(np.int32)
        cv2.polylines(canvas, [points], isClosed=False, color=float(tone), lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.6)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between; `low` may be the larger one."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
