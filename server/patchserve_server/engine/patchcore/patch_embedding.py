"""Patch embedding: from feature maps to patch vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def aggregate_3x3(features: Tensor) -> Tensor:
    """Local aggregation of the PAPER profile (Roth et al. 2022, eq. 2): each position becomes the mean of 3 x 3.

    At the border the mean covers only positions inside. Other implementations add zeros outside, which reduces
    distances there: damage at the border of an image would get half the score. (B, C, H, W) in and out.
    """
    return functional.avg_pool2d(features, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def concat_layers(layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Patch vectors of a batch: the layers resized bilinearly to one grid and concatenated by channel.

    Args:
        layers: each (B, C_i, H_i, W_i) float32.
        size: the grid (H, W); a layer of this size is used unchanged.

    Returns:
        (B, H * W, sum of C_i) float32, contiguous, rows of the grid from top to bottom.
    """
    maps = [
        layer if layer.shape[-2:] == size else functional.interpolate(layer, size, mode="bilinear", align_corners=False)
        for layer in layers
    ]
    return torch.cat(maps, dim=1).flatten(2).transpose(1, 2).contiguous()
