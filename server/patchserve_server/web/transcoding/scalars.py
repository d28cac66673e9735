"""Single values of JSON, checked against the field that they are for.

protobuf's own parser takes `true` for a number, 1.5 for an enum and nearly anything for base64. It also has no words
for what a field takes.
"""

from __future__ import annotations

import math
import re
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from patchserve_server.contract.methods import MAX_TEXT_BYTES
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.transcoding.shown import shown

_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_AS_TEXT: Final[dict[str, tuple[str, type[Duration | Timestamp]]]] = {
    "google.protobuf.Duration": ("1.5s", Duration),
    "google.protobuf.Timestamp": ("2026-01-31T12:00:00.5Z", Timestamp),
}
_MAX_FLOAT: Final = 3.4028234663852886e38
_NO_NUMBERS: Final = frozenset({"NaN", "Infinity", "-Infinity"})  # as protobuf writes them in JSON
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)


def is_written_as_text(field: FieldDescriptor) -> bool:
    """Whether the JSON mapping writes this message as a string, as if it were a scalar."""
    return _type_name(field) in _AS_TEXT


def checked_scalar(field: FieldDescriptor, value: object, path: str) -> object:
    """The value, as protobuf's parser takes it.

    Args:
        field: not bytes, and no message apart from those that are written as text.
        value: of JSON, or text of a query.
        path: of the field in the request, for errors.

    Raises:
        InvalidInputError: the field does not take this value.
    """
    checked: object
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _as_text(field, value, path)
        case FieldDescriptor.CPPTYPE_BOOL:
            checked, expected = value if isinstance(value, bool) else None, "true or false"
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(value, path)
        case FieldDescriptor.CPPTYPE_ENUM:
            # Not a lookup in `values_by_name`, which protobuf leaves with an error pending if the text is not Unicode.
            names = [one.name for one in field.enum_type.values] if field.enum_type is not None else []
            # A number that the enum does not have passes: the contract says what it takes.
            checked = value if isinstance(value, str) and value in names else _integer(value, -(2**31), 2**31 - 1)
            expected = f"one of {', '.join(names)}"
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            limit = _MAX_FLOAT if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else math.inf
            checked, expected = _number(value, limit), "a number"
        case _:
            low, high = _INTEGERS[field.cpp_type]
            checked, expected = _integer(value, low, high), f"a whole number, {low} to {high}"
    if checked is None:
        raise InvalidInputError(path, f"{path} must be {expected}, not {shown(value)}.")
    return checked


def _type_name(field: FieldDescriptor) -> str:
    return field.message_type.full_name if field.message_type is not None else ""


def _as_text(field: FieldDescriptor, value: object, path: str) -> str:
    example, kind = _AS_TEXT[_type_name(field)]
    try:
        if isinstance(value, str):
            kind().FromJsonString(value)
            return value
    except ValueError:
        pass
    raise InvalidInputError(path, f'{path} must be a string such as "{example}", not {shown(value)}.')


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        limit = f" of at most {MAX_TEXT_BYTES:,} bytes"
        raise InvalidInputError(path, f"{path} must be a string{limit}, not {shown(value)}.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(path, f"{path} is not valid Unicode: a surrogate has no partner.") from None
    if size > MAX_TEXT_BYTES:
        raise InvalidInputError(path, f"{path} has {size:,} bytes; at most {MAX_TEXT_BYTES:,} are read.")
    return value


def _integer(value: object, low: int, high: int) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None


def _number(value: object, limit: float) -> float | str | None:
    if isinstance(value, str):
        if value in _NO_NUMBERS:
            return value
        value = float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= limit else None
