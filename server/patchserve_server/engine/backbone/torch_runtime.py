"""The backbone in torch: the runtime on CUDA devices, and the standard that every other runtime is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.runtime import CPU_PASS, FP32


@dataclass(frozen=True, slots=True, eq=False)
class TorchRuntime:
    """Runs a module on its device in fp32."""

    module: nn.Module  # (B, H, W, 3) uint8 -> feature maps, each (B, C, h, w) float32
    device: torch.device

    @property
    def precision(self) -> str:
        return FP32

    @property
    def nbytes(self) -> int:
        return 0

    @property
    def streams(self) -> int:
        return 0 if self.device.type != "cpu" else 1  # it sees large images one by one

    @property
    def largest_pass(self) -> int:
        return CPU_PASS

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        images = torch.from_numpy(np.array(inputs, order="C"))  # torch accepts no reversed or read-only array
        layers: tuple[Tensor, ...] = self.module(images.to(self.device, non_blocking=True))
        return layers


class NormalizedLayers(nn.Module):
    """The used layers of a backbone after the normalization of its images: (B, H, W, 3) uint8 -> feature maps."""

    def __init__(self, part: nn.Module, spec: BackboneSpec, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: of the network's weights. The input is scaled in float32."""
        super().__init__()
        self.spec = spec
        self.dtype = dtype
        self.part = part  # OpenVINO's operation names contain this name; the recipe of int8 matches them
        self.register_buffer("_mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = images.permute(0, 3, 1, 2).float() / 255
        normalized = (scaled - self.get_buffer("_mean")) / self.get_buffer("_std")
        layers: tuple[Tensor, ...] = self.part(normalized if self.dtype is torch.float32 else normalized.to(self.dtype))
        return layers


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place: the same function, fewer passes over memory.

    The convolution before a batch norm is the one registered right before it in the same module. This holds for every
    network here.
    """
    for parent in network.modules():
        convolution = ""
        for name, child in list(parent.named_children()):
            if convolution and isinstance(child, nn.BatchNorm2d):
                setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), child))
                setattr(parent, name, nn.Identity())
            convolution = name if isinstance(child, nn.Conv2d) else ""
