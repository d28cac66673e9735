"""The runtime: executes a backbone."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs

FP32 = "fp32"
TF32 = "tf32"  # convolutions round their factors to 10 bits; everything else is as in FP32
BF16 = "bf16"
FP16 = "fp16"
INT8 = "int8"

CPU_PASS = 8
"""How many images of 224 x 224 px a CPU is given at once: more of them save nothing, and need more memory."""


class Runtime(Protocol):
    """Computes the feature maps of a backbone. Safe to use from several threads at once."""

    @property
    def precision(self) -> str:
        """The number format that it computes in: FP32, TF32, BF16, FP16 or INT8."""

    @property
    def device(self) -> torch.device:
        """Where the feature maps are."""

    @property
    def nbytes(self) -> int:
        """Main memory of this runtime for one reference; 0 if all references share it."""

    @property
    def streams(self) -> int:
        """How many images have buffers of their own in main memory."""

    @property
    def largest_pass(self) -> int:
        """How many images of 224 x 224 px it may be given at once; fewer of larger ones."""

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        """Feature maps, each (B, C, H, W) float32 on the device, finest first, of inputs (B, H, W, 3) uint8."""
