"""The unfolded box: one flat sheet with the material of every visible point of the surface.

The top is at the origin with its rear edge up, the front below it, the right side to its right. So tape, stains and
cardboard continue over the edges.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from parcel_scene.noise import Array

LENGTH_MM, WIDTH_MM, HEIGHT_MM = 320.0, 240.0, 150.0
PX_PER_MM = 4
SHAPE = (int((WIDTH_MM + HEIGHT_MM) * PX_PER_MM), int((LENGTH_MM + HEIGHT_MM) * PX_PER_MM))


@dataclass
class Sheet:
    """The material of the surface. The functions that draw on it change it in place."""

    albedo: Array  # (H, W, 3) linear RGB, 0..1
    height_mm: Array  # (H, W) relief
    gloss: Array  # (H, W) 0: paper, 1: film
    damage: Array  # (H, W) 0..1, where the parcel is damaged

    def blend(self, color: Array | tuple[float, float, float], alpha: Array) -> None:
        """Draw a color over the surface, with alpha (H, W)."""
        self.albedo += (np.asarray(color, np.float32) - self.albedo) * alpha[..., None]

    def tint(self, factor: tuple[float, float, float], alpha: Array) -> None:
        """Multiply the surface's color, as a translucent film or a liquid does."""
        self.albedo *= 1 + (np.asarray(factor, np.float32) - 1) * alpha[..., None]


def grid_mm() -> tuple[Array, Array]:
    """The coordinates of every pixel on the sheet: x (H, W), y (H, W)."""
    x_mm = (np.arange(SHAPE[1], dtype=np.float32) + 0.5) / PX_PER_MM
    y_mm = (np.arange(SHAPE[0], dtype=np.float32) + 0.5) / PX_PER_MM
    x, y = np.meshgrid(x_mm, y_mm)
    return x, y


def polygon(points_mm: Array, softness_mm: float = 0.15) -> Array:
    """The inside of a polygon (N, 2) as (H, W) 0..1, smooth at its edge."""
    canvas = np.zeros(SHAPE, np.uint8)
    points = np.round(np.asarray(points_mm) * PX_PER_MM * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255.0, lineType=cv2.LINE_AA, shift=4)
    return blurred(canvas.astype(np.float32) / 255, softness_mm)


def stroke(points_mm: Array, thickness_mm: float, softness_mm: float = 0.15) -> Array:
    """An open line through points (N, 2) as (H, W) 0..1."""
    canvas = np.zeros(SHAPE, np.uint8)
    points = np.round(np.asarray(points_mm) * PX_PER_MM * 16).astype(np.int32)
    thickness = max(1, round(thickness_mm * PX_PER_MM))
    cv2.polylines(canvas, [points], isClosed=False, color=255.0, thickness=thickness, lineType=cv2.LINE_AA, shift=4)
    return blurred(canvas.astype(np.float32) / 255, softness_mm)


def blurred(image: Array, sigma_mm: float) -> Array:
    return cv2.GaussianBlur(image, (0, 0), sigma_mm * PX_PER_MM)
