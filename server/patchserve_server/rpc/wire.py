"""Checks the bytes of a message before they are parsed, so that no message can take much more memory than its bytes.

A message of two-byte elements takes fifty times its bytes once it is parsed, and seconds in which nothing else runs.
So elements are counted here first. The count stops at the limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from patchserve_server.contract.methods import MAX_TEXT_BYTES
from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError

MAX_NUMBERS_BYTES: Final = 256  # of a list of numbers
MAX_CONTENTS_BYTES: Final = 4 * 2**20  # of all lists of numbers in one message: the contents of tensors
_TOO_MANY_NUMBERS: Final = (
    f"The lists of numbers have more than {MAX_CONTENTS_BYTES:,} bytes. Send large tensors in raw_input_contents."
)
_CONTENTS: Final = "inference.InferTensorContents"
_BYTES_PER_NUMBER: Final = 8  # parsed, from one byte of the message: 4 bytes each, twice while the list grows
_LONG_NUMBERS: Final = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    max_bytes: int | None  # None: no limit of its own
    message: Descriptor | None = None
    growth: int = 0  # of a list of numbers: bytes that it takes parsed, for each byte in the message


def check_message(data: bytes, descriptor: Descriptor, max_elements: int) -> int:
    """Checks the size of each text, of each list of numbers, and the number of fields and list elements.

    Args:
        data: the bytes of the message.
        descriptor: what they should be.
        max_elements: how many fields and elements of lists there may be in total, those in nested messages included.

    Returns:
        About how many bytes the lists of numbers take when they are parsed.

    Raises:
        MalformedMessageError: the bytes are not a message.
        InvalidInputError: there is too much of something.
    """
    remaining = max_elements
    list_bytes = parsed_bytes = 0
    nested = [(descriptor, 0, len(data), "")]
    while nested:
        message, start, end, path = nested.pop()
        fields = _fields(message)
        for number, value_start, value_end, is_delimited in _elements(data, start, end):
            field = fields.get(number)
            name = path + field.name if field else path.removesuffix(".")
            if (remaining := remaining - 1) < 0:
                text = f"The message has more than {max_elements:,} fields and list elements."
                raise InvalidInputError(name, text)
            if field is None or not is_delimited:
                continue
            size = value_end - value_start
            if field.max_bytes is not None and size > field.max_bytes:
                text = f"{name} has {size:,} bytes; at most {field.max_bytes:,} are read."
                raise InvalidInputError(name, text)
            if field.growth:
                list_bytes, parsed_bytes = list_bytes + size, parsed_bytes + size * field.growth
                if list_bytes > MAX_CONTENTS_BYTES:
                    raise InvalidInputError(name, _TOO_MANY_NUMBERS)
            if field.message is not None:
                nested.append((field.message, value_start, value_end, f"{name}."))
    return parsed_bytes


@cache
def _fields(message: Descriptor) -> dict[int, _Field]:
    return {field.number: _limits_of(field, message.full_name) for field in message.fields}


def _limits_of(field: FieldDescriptor, message_name: str) -> _Field:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return _Field(field.name, None, message=field.message_type)
        case FieldDescriptor.TYPE_BYTES:
            return _Field(field.name, None)
        case FieldDescriptor.TYPE_STRING:
            return _Field(field.name, MAX_TEXT_BYTES)
        case _:
            is_contents = message_name == _CONTENTS
            growth = _BYTES_PER_NUMBER * (2 if field.cpp_type in _LONG_NUMBERS else 1)
            return _Field(field.name, None if is_contents else MAX_NUMBERS_BYTES, growth=growth)


def _elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, bool]]:
    """The field number of each element, where its value begins and ends, and whether it has a length."""
    while start < end:
        tag, start = _varint(data, start, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _LENGTH:
            size, start = _varint(data, start, end)
        elif wire_type == _VARINT:
            size = _varint(data, start, end)[1] - start
        else:
            size = _FIXED_SIZES.get(wire_type, -1)  # groups are not in these messages
        if number == 0 or size < 0 or start + size > end:
            raise MalformedMessageError
        yield number, start, start + size, wire_type == _LENGTH
        start += size


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The number that begins at `start`, and where it ends."""
    value = 0
    for position in range(start, min(end, start + _MAX_VARINT_BYTES)):
        byte = data[position]
        value |= (byte & 0x7F) << (7 * (position - start))
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return value, position + 1
    raise MalformedMessageError
