"""The vision transformers DINOv2 and DINOv3, with the layers and the distance that were published for anomalies.

DINOv2 as in AnomalyDINO (Damm et al. 2025, arXiv 2405.14529): the patch tokens of the last block. DINOv3 as in RAD
(Zhang et al. 2026, arXiv 2601.22763): those of the blocks 3, 6, 9 and 11. Both compare them by cosine after the
network's final norm. docs/backbones.md explains how vectors of unit length give the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchserve_server.engine.backbone.backbone_spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from patchserve_server.engine.backbone.dino_names import rename_dinov2, rename_dinov3
from patchserve_server.engine.backbone.downloads import (
    download_file,
    download_from_hub,
    downloaded,
    downloaded_from_hub,
)
from patchserve_server.engine.backbone.timm_package import import_timm

_DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2"
_DINOV3: Final = "timm/vit_small_patch16_dinov3.lvd1689m"
_BYTES_PER_PX = 400
_DINOV2_BLOCKS = (11,)
_DINOV3_BLOCKS = (3, 6, 9, 11)


class _DinoLayers(nn.Module):
    """The patch tokens of some blocks after the final norm, each (B, C, h, w). Together they have unit length."""

    def __init__(self, full: nn.Module, blocks: tuple[int, ...]) -> None:
        super().__init__()
        network: Any = full
        self.cls_token: Tensor = network.cls_token
        self.reg_token: Tensor | None = network.reg_token  # registers: further tokens without a place
        self.patch_embed: Any = network.patch_embed
        self.blocks: nn.Sequential = network.blocks[: blocks[-1] + 1]
        self.norm: nn.Module = network.norm
        self._used = blocks

    def _tokens_of(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The prefix (B, T, C), that is class token and registers; patch tokens (B, P, C); the patch grid."""
        patches = self.patch_embed.proj(images)
        prefix = [token.expand(len(images), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        return torch.cat(prefix, dim=1), patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])

    def _layers_of(
        self, tokens: Tensor, prefix_count: int, grid: tuple[int, int], **of_blocks: Tensor
    ) -> tuple[Tensor, ...]:
        layers: list[Tensor] = []
        for position, block in enumerate(self.blocks):
            tokens = block(tokens, **of_blocks)
            if position in self._used:
                patches = functional.normalize(self.norm(tokens)[:, prefix_count:], dim=2) / len(self._used) ** 0.5
                layers.append(patches.transpose(1, 2).unflatten(2, grid))
        return tuple(layers)


class _DinoV2Layers(_DinoLayers):
    """With learned positions, resized bicubically from the grid of the training to that of the image."""

    def __init__(self, full: nn.Module, *, antialias: bool) -> None:
        super().__init__(full, _DINOV2_BLOCKS)
        network: Any = full
        self.pos_embed: Tensor = network.pos_embed
        self._trained_grid: tuple[int, int] = network.patch_embed.grid_size
        self._antialias = antialias  # as DINOv2 was published: with registers only

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        prefix, patches, grid = self._tokens_of(images)
        trained = self._trained_grid[0] * self._trained_grid[1]
        of_prefix, of_patches = self.pos_embed[:, :-trained], self.pos_embed[:, -trained:]
        positions = functional.interpolate(
            of_patches.transpose(1, 2).reshape(1, -1, *self._trained_grid),
            grid,
            mode="bicubic",
            antialias=self._antialias,
        )
        if of_prefix.shape[1]:
            prefix = prefix + of_prefix
        tokens = torch.cat((prefix, patches + positions.flatten(2).transpose(1, 2)), dim=1)
        return self._layers_of(tokens, prefix.shape[1], grid)


class _DinoV3Layers(_DinoLayers):
    """With rotary positions: each pair of values of query and key is turned by an angle that depends on the place."""

    def __init__(self, full: nn.Module) -> None:
        super().__init__(full, _DINOV3_BLOCKS)
        network: Any = full
        self.register_buffer("_periods", network.rope.periods, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        prefix, patches, grid = self._tokens_of(images)
        angles = self._angles(grid).to(patches.dtype)
        return self._layers_of(torch.cat((prefix, patches), dim=1), prefix.shape[1], grid, rope=angles)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Weights may change their number format. The periods stay in float32: in bfloat16, angles would be far off."""
        periods = self.get_buffer("_periods")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._periods = periods.to(self.get_buffer("_periods").device)
        return self

    def _angles(self, grid: tuple[int, int]) -> Tensor:
        """Sine and cosine of the angles, (P, 2 D) for heads of D values, as timm's blocks take them.

        Rows and columns go from -1 to 1 over the image. timm's own function would give OpenVINO those of one shape.
        """
        periods = self.get_buffer("_periods")  # (D / 4,)
        rows, columns = (
            (torch.arange(count, dtype=periods.dtype, device=periods.device) + 0.5) / count * 2 - 1 for count in grid
        )
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (P, 2)
        angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).tile(2)  # (P, D)
        return torch.cat((angles.sin(), angles.cos()), dim=1)


def _spec(
    name: str,
    *,
    timm_name: str,
    patch_px: int,
    feature_dim: int,
    truncate: Callable[[nn.Module], nn.Module],
    **of_weights: Callable[..., object],
) -> BackboneSpec:
    def build() -> nn.Module:
        timm = import_timm()
        with torch.device("cpu"):  # some of its constants are no weights, and are computed while it is built
            network: nn.Module = timm.create_model(timm_name, pretrained=False, dynamic_img_size=True)
        return network

    return BackboneSpec(
        name=name,
        normalization="imagenet",
        step_px=patch_px,
        stride_px=patch_px,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        feature_dim=feature_dim,
        bytes_per_px=_BYTES_PER_PX,
        int8=None,
        build=build,
        truncate=truncate,
        **of_weights,  # type: ignore[arg-type]
    )


def _dinov2(name: str, *, timm_name: str, file: str, sha256: str, has_registers: bool) -> BackboneSpec:
    url = f"{_DINOV2_URL}/dinov2_vits14/{file}"
    return _spec(
        name,
        timm_name=timm_name,
        patch_px=14,
        feature_dim=384,
        truncate=partial(_DinoV2Layers, antialias=has_registers),
        pretrained=lambda: download_file(url, sha256, f"Meta's {file}"),
        stored=lambda: downloaded(url, sha256),
        rename=rename_dinov2,
    )


DINOV2_VITS14: Final = _dinov2(
    "dinov2_vits14",
    timm_name="vit_small_patch14_dinov2",
    file="dinov2_vits14_pretrain.pth",
    sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    has_registers=False,
)
DINOV2_VITS14_REG: Final = _dinov2(
    "dinov2_vits14_reg",
    timm_name="vit_small_patch14_reg4_dinov2",
    file="dinov2_vits14_reg4_pretrain.pth",
    sha256="f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    has_registers=True,
)
DINOV3_VITS16: Final = _spec(
    "dinov3_vits16",
    timm_name="vit_small_patch16_dinov3_qkvb",
    patch_px=16,
    feature_dim=4 * 384,
    truncate=_DinoV3Layers,
    pretrained=lambda: download_from_hub(_DINOV3),
    stored=lambda: downloaded_from_hub(_DINOV3),
    rename=rename_dinov3,
)
