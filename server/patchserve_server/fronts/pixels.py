"""Memory that a front and its engine share: model inputs or files one way, anomaly maps back in the same slot."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

SLOT_BYTES: Final = 2**20  # a model input of 448 px, and its map
SLOTS: Final = 64  # memory is taken only for those that were in use


class SharedPixels:
    """Slots of one front. Larger arrays, or more of them, go through the connection.

    Args:
        file: an open file, such as that of `create`.
    """

    def __init__(self, file: int) -> None:
        if os.fstat(file).st_size == 0:
            os.ftruncate(file, SLOTS * SLOT_BYTES)
        self._memory = mmap.mmap(file, SLOTS * SLOT_BYTES)
        self._free = list(range(SLOTS))

    @staticmethod
    def create() -> int:
        """The file of new memory. It has no name, and is gone with its last process."""
        return os.memfd_create("patchserve-pixels", os.MFD_CLOEXEC)

    def take(self, nbytes: int) -> int | None:
        """A free slot for this many bytes, if there is one. For the front, which gives it back with `release`."""
        return self._free.pop() if self._free and nbytes <= SLOT_BYTES else None

    def release(self, slot: int) -> None:
        self._free.append(slot)

    def view(self, slot: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """The array at the begin of a slot, without a copy.

        Raises:
            ValueError: there is no such slot, or it is too small.
        """
        count, item = int(np.prod(shape)), np.dtype(dtype)
        if not 0 <= slot < SLOTS or not 0 < count * item.itemsize <= SLOT_BYTES:
            raise ValueError(f"Slot {slot} has no array of shape {shape}.")
        return np.frombuffer(self._memory, item, count, slot * SLOT_BYTES).reshape(shape)
