"""The bank file: the arrays of a memory bank or of a subspace, in safetensors format."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference import Bank, MemoryBank
from patchserve_server.domain.subspace import Subspace
from patchserve_server.store.damage import DamageError, printable
from patchserve_server.store.files import open_plain_file
from patchserve_server.store.records import unique_keys
from patchserve_server.system.disk import sync_file

MAX_HEADER_BYTES = 4096
_WHAT = "bank file"
_ARRAYS: Final[Mapping[type[MemoryBank | Subspace], Mapping[str, str]]] = {  # name -> type in safetensors
    MemoryBank: {"patches": "F32", "image_index": "I32", "grid_index": "I32", "spacing": "F32", "inputs": "U8"},
    Subspace: {"mean": "F32", "basis": "F32", "inputs": "U8"},
}


_ITEM_BYTES: Final = {"F32": 4, "I32": 4, "U8": 1}


@dataclass(frozen=True, slots=True)
class DescribedBank:
    """A bank whose arrays are not read."""

    image_count: int
    input_shape: InputShape
    vector_count: int
    feature_dim: int
    nbytes: int


def write_bank(path: Path, bank: Bank) -> None:
    """Write the arrays without copying them, and wait until they are on disk."""
    write_bank_unsynced(path, bank)
    sync_file(path)


def write_bank_unsynced(path: Path, bank: Bank) -> None:
    """Write the arrays without copying them. Equal banks give equal bytes."""
    arrays = {name: np.ascontiguousarray(getattr(bank, name)) for name in _ARRAYS[type(bank)]}
    try:
        save_file(arrays, path)
    except SafetensorError as error:
        raise _system_error(error) or OSError(str(error)) from error


class BankFile:
    """An open bank file. It can be read even after its folder was removed. It is not memory-mapped.

    Raises:
        DamageError: the file is missing, or its header breaks the format.
    """

    def __init__(self, path: Path) -> None:
        header = _read_header(path)
        self._file = _open(path)
        # The library has already checked the header, except for duplicate keys.
        try:
            json.loads(header, object_pairs_hook=unique_keys)
        except ValueError as error:
            raise _damage(error) from error
        types = {name: self._file.get_slice(name).get_dtype() for name in self._file.keys()}  # noqa: SIM118
        kind = Subspace if types.keys() & {"mean", "basis"} else MemoryBank
        if types != _ARRAYS[kind]:
            names = ", ".join(_ARRAYS[kind])
            raise DamageError(f"its {_WHAT} does not contain exactly the arrays {names} in their types")
        self._kind: type[MemoryBank | Subspace] = kind

    def described(self) -> DescribedBank:
        """What the shapes of the arrays say.

        Raises:
            DamageError: they are not those of a bank.
        """
        shapes = {name: self._file.get_slice(name).get_shape() for name in _ARRAYS[self._kind]}
        nbytes = sum(_ITEM_BYTES[kind] * math.prod(shapes[name]) for name, kind in _ARRAYS[self._kind].items())
        vectors = shapes["basis" if self._kind is Subspace else "patches"]
        try:
            rows, feature_dim = vectors
            images, height_px, width_px, _ = shapes["inputs"]
            shape = InputShape(height_px, width_px)
        except ValueError:
            raise DamageError(f"its {_WHAT} has an array in another shape") from None
        return DescribedBank(images, shape, rows + (self._kind is Subspace), feature_dim, nbytes)

    def read(self) -> Bank:
        """The arrays, in new memory.

        Raises:
            DamageError: the file was truncated in the meantime, an array breaks the format, or memory is too small.
        """
        try:
            arrays = {name: self._file.get_tensor(name) for name in _ARRAYS[self._kind]}
        except MemoryError:
            raise DamageError(f"its {_WHAT} does not fit into memory") from None
        except SafetensorError as error:
            raise _system_error(error) or _damage(error) from error
        try:
            return self._kind(**arrays)
        except ValueError as error:
            raise DamageError(f"its {error}") from error


def _open(path: Path) -> Any:  # noqa: ANN401 - the library has no types
    try:
        return safe_open(path, framework="np", backend="pread")
    except SafetensorError as error:
        raise _system_error(error) or _damage(error) from error


def _read_header(path: Path) -> bytes:
    """The JSON header. The library accepts headers of 100 MB, so the size is checked before it reads the file."""
    with open_plain_file(path, _WHAT) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise DamageError(f"its {_WHAT} has a header larger than {MAX_HEADER_BYTES} bytes")
        return file.read(length)


def _damage(error: Exception) -> DamageError:
    return DamageError(f"its {_WHAT} cannot be read ({printable(str(error))})")


def _system_error(error: SafetensorError) -> OSError | None:
    """The system error that caused a library error. The library's message contains only its number."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else None
