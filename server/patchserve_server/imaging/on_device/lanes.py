"""A stream of its own for each thread that decodes or draws, and what must not be shared between streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from patchserve_server.imaging.on_device.drawing import Painter
from patchserve_server.imaging.on_device.scaling import Scaler

_GPU: Final = "cuda"


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """What one thread works on. The weights belong to its stream: only there is it known when they are read."""

    scaler: Scaler
    painter: Painter
    stream: torch.cuda.Stream | None  # None: on a CPU

    @classmethod
    def on(cls, device: torch.device) -> Lane:
        stream = torch.cuda.Stream(device) if device.type == _GPU else None  # type: ignore[no-untyped-call]
        with _on(stream):
            scaler = Scaler(device)
            return cls(scaler, Painter(device, scaler), stream)

    def entered(self) -> AbstractContextManager[None]:
        """Work of the block goes to the stream of this thread: nobody waits there for passes of the network."""
        return _on(self.stream)

    def hand_over(self, results: Sequence[Tensor]) -> None:
        """Lets the stream outside use what was computed here. The device waits, and not the thread."""
        if self.stream is None:
            return
        outside = torch.cuda.current_stream(self.stream.device)
        outside.wait_stream(self.stream)
        for tensor in results:
            tensor.record_stream(outside)  # its memory is not used again before the stream outside has read it


class Lanes(threading.local):
    """The lane of each thread on one device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.own = Lane.on(device)


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    if stream is None:
        yield
        return
    with torch.cuda.device(stream.device), torch.cuda.stream(stream):
        yield
