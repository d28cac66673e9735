"""What the engine needs to take JPEG files: the codec of its device. `imaging` has one, for torchcodec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing


class Codec(Protocol):
    """Decodes and draws on one device. Blocking; called from several threads at once."""

    def decode(self, files: Sequence[JpegFile], shape: InputShape) -> Sequence[Tensor | DeviceCodecError]:
        """The model input of each file, (H, W, 3) uint8 on the device; an error where it cannot be decoded.

        What the caller launches next may use them: the device itself waits for what is not done.

        Raises:
            torch.OutOfMemoryError: the device has too little memory to scale them.
        """

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        """The JPEG file of each overlay; an error where it cannot be drawn."""

    def warm_up(self) -> None:
        """Decodes and draws once in as many threads as will do so: the first time takes a third of a second.

        Raises:
            StartupError: the device cannot do so.
        """

    def samples(self, shape: InputShape) -> tuple[ModelInputs, ModelInputs]:
        """JPEG files of this size (N, H, W, 3), two or more, as the CPU decodes them and as the device does."""


OpenCodec: TypeAlias = Callable[[torch.device], Codec]
"""Opens the codec of a device. Raises StartupError if there is none."""
