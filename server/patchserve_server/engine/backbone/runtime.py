"""The runtime: executes a backbone."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs

FP32 = "fp32"
BF16 = "bf16"
INT8 = "int8"


class Runtime(Protocol):
    """Computes the feature maps of a backbone. Safe to use from several threads at once."""

    @property
    def precision(self) -> str:
        """The number format that it computes in: FP32, BF16 or INT8."""

    @property
    def device(self) -> torch.device:
        """Where the feature maps are."""

    @property
    def nbytes(self) -> int:
        """Main memory of this runtime for one reference; 0 if all references share it."""

    @property
    def streams(self) -> int:
        """How many images have buffers of their own in main memory."""

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        """Feature maps, each (B, C, H, W) float32 on the device, finest first, of inputs (B, H, W, 3) uint8."""
