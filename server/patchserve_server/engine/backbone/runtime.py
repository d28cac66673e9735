"""What computes a network's layers: the protocol, and torch, which defines what the others must equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.architectures import BackboneSpec

FP32 = "fp32"
BF16 = "bf16"
INT8 = "int8"


class Runtime(Protocol):
    """The used layers of a backbone, ready to run. Called from several threads at once."""

    @property
    def precision(self) -> str:
        """What it computes in: FP32, BF16 or INT8."""

    @property
    def device(self) -> torch.device:
        """Where the layers lie."""

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) float32, the finest first, of inputs (B, S, S, 3) uint8."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchRuntime:
    """On CUDA devices, and the measure of every other runtime."""

    module: nn.Module  # (B, S, S, 3) uint8 -> feature maps (B, C, H, W) float32
    device: torch.device

    @property
    def precision(self) -> str:
        return FP32

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        images = torch.from_numpy(np.array(inputs, order="C"))  # torch takes no reversed and no read-only array
        layers: tuple[Tensor, ...] = self.module(images.to(self.device, non_blocking=True))
        return layers


class NormalizedLayers(nn.Module):
    """The used layers of a backbone with what its images need first: (B, S, S, 3) uint8 in, the layers out."""

    def __init__(self, part: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        self.part = part
        self.register_buffer("_mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = images.permute(0, 3, 1, 2).float() / 255
        layers: tuple[Tensor, ...] = self.part((scaled - self.get_buffer("_mean")) / self.get_buffer("_std"))
        return layers
