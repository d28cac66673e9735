"""Bank files that are refused, and a part of each message."""

from __future__ import annotations

import json
import struct
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fakes.damage import TEBIBYTE, VICTIM, Harm, bank, sparse, write
from fakes.references import make_subspace_model

BANK = VICTIM.model.memory_bank
TYPES = {"patches": "F32", "image_index": "I32", "grid_index": "I32", "spacing": "F32", "inputs": "U8"}
ARRAYS: dict[str, NDArray[Any]] = {name: getattr(BANK, name) for name in TYPES}
DATA = b"".join(array.tobytes() for array in ARRAYS.values())
END = dict(zip(ARRAYS, accumulate(array.nbytes for array in ARRAYS.values()), strict=True))
HEADER: dict[str, dict[str, Any]] = {
    name: {"dtype": TYPES[name], "shape": list(array.shape), "data_offsets": [END[name] - array.nbytes, END[name]]}
    for name, array in ARRAYS.items()
}
VALID_HEADER = json.dumps(HEADER).encode()
SUBSPACE: dict[str, NDArray[Any]] = {
    name: getattr(make_subspace_model().bank, name) for name in ("mean", "basis", "inputs")
}
PER_ROW = ("patches", "image_index", "grid_index", "spacing")
UNREAD = "its bank file cannot be read"


def raw(header: bytes, data: bytes = DATA) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def header_with(name: str, data: bytes = DATA, **changes: object) -> Harm:
    """The header describes one array differently."""
    return write(bank, raw(json.dumps(HEADER | {name: HEADER[name] | changes}).encode(), data))


def with_first(name: str, value: float) -> Harm:
    """The first element of an array is changed."""
    array = ARRAYS[name].copy()
    array[0] = value
    return arrays_with(**{name: array})


def arrays_with(**changes: NDArray[Any] | None) -> Harm:
    """A valid safetensors file with other arrays; None leaves one out."""
    arrays: dict[str, NDArray[Any] | None] = {**ARRAYS, **changes}
    return write(bank, save({name: array for name, array in arrays.items() if array is not None}))


HEADERS = {
    "empty": (UNREAD, write(bank, b"")),
    "zeros": (UNREAD, write(bank, bytes(4096))),
    "a tebibyte": ("header larger than 4096 bytes", sparse(bank, b"PK\x03\x04PK\x03\x04")),
    "a pickle": ("header larger than 4096 bytes", write(bank, b"\x80\x04\x95\x10\x00\x00\x00\x00\x8c\x05posix\x94.")),
    "header of 2^63 bytes": ("header larger than 4096 bytes", write(bank, struct.pack("<Q", 2**63) + b"{}")),
    "header of 100 MB": (
        "header larger than 4096 bytes",
        sparse(bank, struct.pack("<Q", 100_000_000) + b"{", 100_000_100),
    ),
    "header past the end": (UNREAD, write(bank, struct.pack("<Q", 4000) + b"{}")),
    "header a deep list": (UNREAD, write(bank, raw(b"[" * 4000))),
    "header with deep metadata": (UNREAD, write(bank, raw(b'{"__metadata__":' * 200))),
    "header not UTF-8": (UNREAD, write(bank, raw(b"\xff\xfe\xfd"))),
    "header an empty object": (UNREAD, write(bank, raw(b"{}"))),
    "header an empty object and no data": ("exactly the arrays", write(bank, raw(b"{}", b""))),
    "header a list": (UNREAD, write(bank, raw(b"[]"))),
    "header with a name twice": (
        "duplicate key",
        write(bank, raw(VALID_HEADER[:-1] + b',"patches":' + json.dumps(HEADER["patches"]).encode() + b"}")),
    ),
    "header with a key twice": (
        UNREAD,
        write(bank, raw(VALID_HEADER.replace(b'"dtype": "U8"', b'"dtype": "I8", "dtype": "U8"'))),
    ),
}

TENSORS = {
    "cut": (UNREAD, write(bank, raw(VALID_HEADER, DATA[:-1]))),
    "too long": (UNREAD, write(bank, raw(VALID_HEADER, DATA + b"x"))),
    "a tebibyte behind a valid header": (UNREAD, sparse(bank, raw(VALID_HEADER))),
    "offsets overlap": (
        UNREAD,
        header_with("image_index", data_offsets=[END["patches"] - 4, END["image_index"] - 4]),
    ),
    "offsets leave a hole": (
        UNREAD,
        header_with("inputs", DATA + bytes(8), data_offsets=[END["spacing"] + 8, END["inputs"] + 8]),
    ),
    "offsets out of range": (
        UNREAD,
        header_with("inputs", data_offsets=[END["spacing"] + TEBIBYTE, END["inputs"] + TEBIBYTE]),
    ),
    "offsets reversed": (UNREAD, header_with("inputs", data_offsets=[END["inputs"], END["spacing"]])),
    "offsets negative": (UNREAD, header_with("inputs", data_offsets=[-1, END["inputs"]])),
    "shape overflows": (UNREAD, header_with("patches", shape=[2**62, 2**62])),
    "shape negative": (UNREAD, header_with("patches", shape=[-60, -8])),
    "shape lies": (UNREAD, header_with("patches", shape=[1, BANK.patches.size - 1])),
    "shape transposed": ("differ in length", header_with("patches", shape=list(BANK.patches.shape[::-1]))),
    "shape flat": (
        "array patches is not a non-empty float32",
        header_with("patches", shape=[BANK.patches.size]),
    ),
    "type lies": ("exactly the arrays", header_with("patches", dtype="I32")),
    "type unknown": (UNREAD, header_with("patches", dtype="PICKLE")),
    "type that NumPy does not have": ("exactly the arrays", header_with("inputs", dtype="F8_E4M3")),
}

CONTENT = {
    **{f"without {name}": ("exactly the arrays", arrays_with(**{name: None})) for name in ARRAYS},
    "with more": ("exactly the arrays", arrays_with(more=np.zeros(1, np.float32))),
    "with a mean": ("exactly the arrays mean, basis, inputs", arrays_with(mean=np.zeros(8, np.float32))),
    "of a subspace": ("does not contain the arrays of its profile", write(bank, save(SUBSPACE))),
    "of a subspace of another dim": (
        "arrays mean and basis differ in the number of features",
        write(bank, save(SUBSPACE | {"mean": np.zeros(7, np.float32)})),
    ),
    "of a subspace without a basis": (
        "exactly the arrays mean, basis, inputs",
        write(bank, save({name: array for name, array in SUBSPACE.items() if name != "basis"})),
    ),
    "patches of float64": ("exactly the arrays", arrays_with(patches=BANK.patches.astype(np.float64))),
    "patches without rows": (
        "array patches is not a non-empty float32",
        arrays_with(**{name: ARRAYS[name][:0] for name in PER_ROW}),
    ),
    "patches without columns": ("not a non-empty float32 array", arrays_with(patches=np.zeros((60, 0), np.float32))),
    "patches other": ("does not match its revision", arrays_with(patches=np.nextafter(BANK.patches, np.float32(9)))),
    **{f"{name} of one row less": ("differ in length", arrays_with(**{name: ARRAYS[name][1:]})) for name in PER_ROW},
    **{
        f"{name} of two axes": (f"array {name} is not", arrays_with(**{name: ARRAYS[name][:, None]}))
        for name in ("image_index", "grid_index", "spacing")
    },
    "image_index too low": (
        "refers to an image that does not exist",
        arrays_with(image_index=BANK.image_index - 1),
    ),
    "image_index too high": (
        "refers to an image that does not exist",
        arrays_with(image_index=BANK.image_index + 1),
    ),
    "grid_index of float32": (
        "exactly the arrays",
        arrays_with(grid_index=BANK.grid_index.astype(np.float32)),
    ),
    "grid_index too low": ("grid_index has a negative value", with_first("grid_index", -1)),
    "grid_index other": ("does not match its revision", arrays_with(grid_index=BANK.grid_index + np.int32(1))),
    "spacing of float64": ("exactly the arrays", arrays_with(spacing=BANK.spacing.astype(np.float64))),
    **{
        f"spacing {value}": ("spacing has a value that is not finite or not above 0", with_first("spacing", value))
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, -0.5)
    },
    "spacing other": ("does not match its revision", arrays_with(spacing=np.nextafter(BANK.spacing, np.float32(9)))),
    "inputs not square": ("does not match its revision", arrays_with(inputs=np.zeros((3, 4, 5, 3), np.uint8))),
    "inputs gray": ("does not contain RGB images", arrays_with(inputs=np.zeros((3, 4, 4, 1), np.uint8))),
}

BANKS: dict[str, tuple[str, Harm]] = {
    f"bank {name}": refusal for name, refusal in (HEADERS | TENSORS | CONTENT).items()
}
