"""Draws overlays on a device, as `imaging.overlay` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.imaging.heatmap import heat_colors
from patchserve_server.imaging.on_device.canvas_weights import reduced_bilinear
from patchserve_server.imaging.on_device.scaling import Scaler
from patchserve_server.imaging.overlay import IMAGE_WEIGHTS, WEIGHTED_COLORS, draw_outlines, levels_shrink
from patchserve_server.imaging.resize_weights import bicubic, lanczos

_ALL_LEVELS: Final = np.arange(256, dtype=np.uint8)
_VALUES_AT_ONCE: Final = 2**24  # float32
_LARGEST_LEVEL: Final = 255


class Painter:
    """Draws on one device. Not for several threads."""

    def __init__(self, device: torch.device, scaler: Scaler) -> None:
        self._device, self._scaler = device, scaler
        self._heat_colors = self._table(heat_colors(_ALL_LEVELS[:, None]))  # (3, 256) float32
        self._weighted_colors = self._table(WEIGHTED_COLORS)
        self._image_weights = self._table(IMAGE_WEIGHTS)

    def draw(self, image: Tensor, drawing: OverlayDrawing) -> Tensor:
        """The overlay (3, h, w) uint8 on an upright image (3, H, W) uint8."""
        if drawing.scale is HeatmapScale.RELATIVE:
            levels = self._sent(drawing.heat_levels)
            canvas = self._scaler.scale(image, drawing.heat_levels.shape[::-1], bicubic)
            return self._scaler.scale(self._half_each(canvas, levels), drawing.size_px, lanczos)
        overlay = self._blend_by_heat(self._scaled_down(image, drawing.size_px), self._levels_at_size(drawing))
        if drawing.outlines:
            self._outline(overlay, drawing)
        return overlay

    def _half_each(self, canvas: Tensor, levels: Tensor) -> Tensor:
        colors = self._heat_colors[:, levels.long()]
        return colors.add(canvas).mul(0.5).round().to(torch.uint8)  # halves to even numbers, as OpenCV

    def _scaled_down(self, image: Tensor, size_px: tuple[int, int]) -> Tensor:
        if image.shape[:0:-1] == size_px:
            return image
        if max(image.shape[1:]) < 2 * max(size_px):
            return _interpolated(image, size_px, "bilinear")
        return self._scaler.scale(image, size_px, reduced_bilinear)

    def _levels_at_size(self, drawing: OverlayDrawing) -> Tensor:
        """(h, w) uint8."""
        levels, size_px = drawing.heat_levels, drawing.size_px
        if levels_shrink(levels, size_px):  # less is sent then
            return self._sent(cv2.resize(levels, size_px, interpolation=cv2.INTER_AREA))
        return _interpolated(self._sent(levels)[None], size_px, "bicubic")[0]

    def _blend_by_heat(self, canvas: Tensor, levels: Tensor) -> Tensor:
        blend = torch.empty(canvas.shape, dtype=torch.uint8, device=self._device)
        for part, heat, image in _bands(blend, levels, canvas):
            at = heat.long()
            weighted = self._image_weights[:, at].mul_(image).mul_(1 / _LARGEST_LEVEL).round_()
            part.copy_(weighted.add_(self._weighted_colors[:, at]).clamp_(max=_LARGEST_LEVEL))
        return blend

    def _outline(self, overlay: Tensor, drawing: OverlayDrawing) -> None:
        """Draws outlines into an overlay: what drawing them makes of black and of white is linear in between."""
        width, height = drawing.size_px
        planes = np.zeros((2, height, width), np.uint8)
        planes[1] = _LARGEST_LEVEL
        for plane in planes:
            draw_outlines(plane, drawing.outlines, np.array(drawing.size_px) / drawing.file.size_px)
        changed = (planes[0] != 0) | (planes[1] != _LARGEST_LEVEL)
        rows, columns = (_extent(changed.any(axis=axis)) for axis in (1, 0))
        for part, drawn in _bands(overlay[:, rows, columns], self._sent(planes[:, rows, columns])):
            from_black, from_white = drawn.float()
            share = (from_white - from_black) / _LARGEST_LEVEL
            part.copy_(share.mul(part).add_(from_black).round_())

    def _table(self, colors: np.ndarray) -> Tensor:
        """Of colors (256, 1, 3) uint8: (3, 256) float32."""
        return self._sent(np.ascontiguousarray(colors[:, 0].T)).float()

    def _sent(self, array: np.ndarray) -> Tensor:
        # What came over a link is read-only, and torch warns of that.
        return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(self._device)


def _bands(image: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows of each (..., H, W) at a time, so that what is computed of them needs bounded memory."""
    rows = max(1, _VALUES_AT_ONCE // max(1, len(image) * image.shape[-1]))
    return zip(*(torch.split(whole, rows, dim=-2) for whole in (image, *others)), strict=True)


def _interpolated(planes: Tensor, size_px: tuple[int, int], mode: str) -> Tensor:
    """Planes (C, H, W) uint8, scaled to (width, height) as OpenCV's INTER_LINEAR or INTER_CUBIC does."""
    parts = torch.split(planes, max(1, _VALUES_AT_ONCE // max(planes[0].numel(), size_px[0] * size_px[1])))
    scaled = [functional.interpolate(part.float()[None], size_px[::-1], mode=mode)[0] for part in parts]
    return torch.cat([part.round_().clamp_(0, _LARGEST_LEVEL).to(torch.uint8) for part in scaled])


def _extent(changed: np.ndarray) -> slice:
    """From the first to the last True."""
    (at,) = changed.nonzero()
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0)
