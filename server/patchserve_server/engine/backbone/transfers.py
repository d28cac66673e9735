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
        """Tensors of float32 in main memory, in one copy. Waits until the device has computed them: the only wait."""


class DeviceTransfers:
    """Implements `Transfers` for one device.

    On a GPU the copies go through pinned memory, which torch keeps and reuses, so that they overlap with other work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_pinned = device.type == "cuda"

    def to_device(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        stops = list(accumulate((array.size for array in arrays), initial=0))
        joined = torch.empty(stops[-1], dtype=torch.uint8, pin_memory=self._is_pinned)
        flat = joined.numpy()
        for array, (start, stop) in zip(arrays, pairwise(stops), strict=True):
            flat[start:stop].reshape(array.shape)[...] = array
        moved = joined.to(self._device, non_blocking=True)
        return [
            moved[start:stop].view(array.shape) for array, (start, stop) in zip(arrays, pairwise(stops), strict=True)
        ]

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        if self._is_pinned:
            pinned = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
            pinned.copy_(joined, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self._device))
            copied.synchronize()
            joined = pinned
        flat = joined.numpy()
        stops = accumulate((tensor.numel() for tensor in tensors), initial=0)
        return [
            flat[start:stop].reshape(tensor.shape)
            for tensor, (start, stop) in zip(tensors, pairwise(stops), strict=True)
        ]
