"""Copies between main memory and a device: one in and one out for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfers(Protocol):
    """The only way between main memory and the device while a batch is scored."""

    def to_device(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """The arrays on the device, in one copy. It may still be on its way: the device itself waits for it."""

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        """Tensors of float32 in main memory, in one copy. Waits until the device has computed them: the only wait.

        Without tensors it waits for nothing.
        """


class DeviceTransfers:
    """Implements `Transfers` for one device, for any number of threads.

    On a GPU the copies go through pinned memory, which torch keeps and reuses, and on streams of their own. So they
    overlap with what the device computes for other batches: nothing that a batch needs waits for the copy of another.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams = _Streams(device) if device.type == "cuda" else None

    def to_device(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        stops = list(accumulate((array.size for array in arrays), initial=0))
        joined = torch.empty(stops[-1], dtype=torch.uint8, pin_memory=self._streams is not None)
        flat = joined.numpy()
        for array, (start, stop) in zip(arrays, pairwise(stops), strict=True):
            flat[start:stop].reshape(array.shape)[...] = array
        moved = joined.to(self._device) if self._streams is None else self._streams.upload(joined)
        return [
            moved[start:stop].view(array.shape) for array, (start, stop) in zip(arrays, pairwise(stops), strict=True)
        ]

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        if not tensors:
            return []
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        flat = (joined if self._streams is None else self._streams.download(joined)).numpy()
        stops = accumulate((tensor.numel() for tensor in tensors), initial=0)
        return [
            flat[start:stop].reshape(tensor.shape)
            for tensor, (start, stop) in zip(tensors, pairwise(stops), strict=True)
        ]


class _Streams:
    """Copies between pinned memory and a GPU, beside the stream that computes: the current one of that GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._in, self._out = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, pinned: Tensor) -> Tensor:
        """The tensor on the device. The computing stream waits for it, the caller does not."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._in):
            moved = pinned.to(self._device, non_blocking=True)  # torch keeps the pinned memory until then
        computing.wait_stream(self._in)
        moved.record_stream(computing)
        return moved

    def download(self, computed: Tensor) -> Tensor:
        """The tensor in pinned memory. The caller waits for it, and the computing stream does not."""
        pinned = torch.empty(computed.shape, dtype=computed.dtype, pin_memory=True)
        self._out.wait_stream(torch.cuda.current_stream(self._device))
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # a core is not kept busy by waiting
        with torch.cuda.stream(self._out):
            pinned.copy_(computed, non_blocking=True)
            copied.record()
        copied.synchronize()  # so what was computed is not needed any more
        return pinned
