"""The arrays of a memory bank as a safetensors file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from patchserve_server.domain.reference import MemoryBank
from patchserve_server.store.files import open_plain, sync
from patchserve_server.store.records import DamageError, quoted, unique_keys

MAX_HEADER_BYTES = 4096
_WHAT = "bank file"
# name -> its type in safetensors, in NumPy, and its number of axes
_ARRAYS = {
    "patches": ("F32", np.dtype(np.float32), 2),
    "image_index": ("I32", np.dtype(np.int32), 1),
    "grid_index": ("I32", np.dtype(np.int32), 1),
    "spacing": ("F32", np.dtype(np.float32), 1),
    "inputs": ("U8", np.dtype(np.uint8), 4),
}


def check_bank(bank: MemoryBank) -> None:
    """Types, shapes, and that what is said of each row can be.

    Raises:
        DamageError: something does not fit.
    """
    for name, (_, dtype, axes) in _ARRAYS.items():
        array = getattr(bank, name)
        if array.dtype != dtype or array.ndim != axes or 0 in array.shape:
            raise DamageError(f"its array {name} is not {dtype} with {axes} axes, none of them empty")
    if not len(bank.patches) == len(bank.image_index) == len(bank.grid_index) == len(bank.spacing):
        raise DamageError("its arrays patches, image_index, grid_index and spacing differ in length")
    _, height, width, channels = bank.inputs.shape
    if height != width or channels != 3:  # noqa: PLR2004
        raise DamageError("its array inputs does not hold square RGB images")
    if bank.image_index.min() < 0 or bank.image_index.max() >= len(bank.inputs):
        raise DamageError("its array image_index names an image that is not there")
    if bank.grid_index.min() < 0:
        raise DamageError("its array grid_index names a place that is not there")
    if not (bank.spacing.min() > 0 and bank.spacing.max() < np.inf):
        raise DamageError("its array spacing holds other values than finite ones above 0")


def write_bank(path: Path, bank: MemoryBank) -> None:
    """Writes the arrays as they lie in memory, without a second copy, and waits for the disk."""
    arrays = {name: np.ascontiguousarray(getattr(bank, name)) for name in _ARRAYS}
    try:
        save_file(arrays, path)
    except SafetensorError as error:
        raise _system_error(error) or OSError(str(error)) from error
    sync(path)


class BankFile:
    """An opened bank file. It can be read even if its folder is removed meanwhile, and nothing maps it into memory.

    Raises:
        DamageError: it is missing, or its header breaks the format.
    """

    def __init__(self, path: Path) -> None:
        header = _read_header(path)
        self._file = _open(path)
        # The library has found the header sound; that no name stands twice in it is ours to see.
        try:
            json.loads(header, object_pairs_hook=unique_keys)
        except ValueError as error:
            raise _damage(error) from error
        types = {name: self._file.get_slice(name).get_dtype() for name in self._file.keys()}  # noqa: SIM118
        if types != {name: dtype for name, (dtype, _, _) in _ARRAYS.items()}:
            raise DamageError(f"its {_WHAT} does not hold the arrays {', '.join(_ARRAYS)} in their types")

    def read(self) -> MemoryBank:
        """The arrays, in memory of their own.

        Raises:
            DamageError: the file was cut short meanwhile, or says that it holds more than fits into memory.
        """
        try:
            return MemoryBank(**{name: self._file.get_tensor(name) for name in _ARRAYS})
        except MemoryError:
            raise DamageError(f"its {_WHAT} holds more than fits into memory") from None
        except SafetensorError as error:
            raise _system_error(error) or _damage(error) from error


def _open(path: Path) -> Any:  # noqa: ANN401 - the library's methods have no types
    try:
        return safe_open(path, framework="np", backend="pread")
    except SafetensorError as error:
        raise _system_error(error) or _damage(error) from error


def _read_header(path: Path) -> bytes:
    """The JSON header, bounded before the library sees it: it would take one of 100 MB."""
    with open_plain(path, _WHAT) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise DamageError(f"its {_WHAT} has a header larger than {MAX_HEADER_BYTES} bytes")
        return file.read(length)


def _damage(error: Exception) -> DamageError:
    return DamageError(f"its {_WHAT} cannot be read ({quoted(str(error))})")


def _system_error(error: SafetensorError) -> OSError | None:
    """What the library tells of the system's error: only its number, and that only as text."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None
