"""A quantizer that needs no NNCF and that a test can pause in the middle of its work."""

from __future__ import annotations

import threading

import openvino
from torch import Tensor, nn

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.openvino_runtime import convert_to_openvino

SIZE_PX = 32
WAIT_S = 30  # for events that must come, so that a broken test ends


class _Doubled(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (2 * images.permute(0, 3, 1, 2).float(),)


def doubling_model() -> openvino.Model:
    """A tiny model that doubles each value."""
    return convert_to_openvino(_Doubled(), SIZE_PX)


class FakeQuantizer:
    """Returns a doubling model for any images. A call waits after its first progress report until `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()  # set when a call waits at the gate
        self.calls: list[ModelInputs] = []

    def __call__(self, images: ModelInputs, progress: Progress) -> openvino.Model:
        self.calls.append(images)
        progress(LoadStage.QUANTIZE, 0, 1)
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(WAIT_S)
        progress(LoadStage.QUANTIZE, 1, 1)
        return doubling_model()
