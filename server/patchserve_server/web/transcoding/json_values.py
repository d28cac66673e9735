"""From JSON values to a message, by protobuf's own mapping.

Each value is checked first: an error names the field and says what it takes. Bytes go from base64 to the message
directly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError
from patchserve_server.web.transcoding.base64_text import decode_base64
from patchserve_server.web.transcoding.json_text import LongText
from patchserve_server.web.transcoding.scalars import checked_scalar, is_written_as_text
from patchserve_server.web.transcoding.shown import shown

_MAX_NAME: Final = 64


def fill_message(message: Message, value: object, bound: Mapping[str, str]) -> None:
    """Sets the fields of an empty message.

    Args:
        message: is changed.
        value: a JSON object. Bytes are base64 (a string or a LongText), or `bytes` as they are.
        bound: fields whose values are text in the path of the request.

    Raises:
        MalformedMessageError: the value is not an object.
        InvalidInputError: a field does not exist, or does not take its value.
    """
    descriptor = cast(Descriptor, message.DESCRIPTOR)
    if not isinstance(value, dict):
        raise MalformedMessageError(f"The JSON must be an object with the fields of {descriptor.name}.")
    reader = _Reader()
    fields = reader.message(value, descriptor, "")
    for name, text in bound.items():
        from_path = checked_scalar(descriptor.fields_by_name[name], text, name)
        if fields.get(name) and fields[name] != from_path:
            raise InvalidInputError(name, f"{name} is {shown(from_path)} in the path, but {shown(fields[name])} here.")
        fields[name] = from_path
    try:
        json_format.ParseDict(fields, message)
    except json_format.ParseError as error:
        raise MalformedMessageError(f"The JSON is not a {descriptor.name}: {error}") from None
    for path, data in reader.bytes_values:
        _put(message, path, data)


def find_field(descriptor: Descriptor, name: str, path: str) -> FieldDescriptor:
    """The field with this name, that of the contract or that of JSON.

    Raises:
        InvalidInputError: there is none.
    """
    fields = _fields(descriptor)
    if name not in fields:
        nearest = _nearest(descriptor, name[:_MAX_NAME])
        names = ", ".join(field.name for field in descriptor.fields) or "none"
        known = f"Did you mean {nearest}?" if nearest else f"Its fields: {names}."
        readable = name[:_MAX_NAME].encode("ascii", "backslashreplace").decode()
        raise InvalidInputError(join(path, readable), f"{descriptor.name} has no field {shown(name)}. {known}")
    return fields[name]


def join(path: str, name: str) -> str:
    """The path of a field in a message."""
    return f"{path}.{name}" if path else name


class _Reader:
    """Checks values. Sets bytes aside, with the way to them in the message: names of fields and indexes of lists."""

    def __init__(self) -> None:
        self.bytes_values: list[tuple[tuple[str | int, ...], bytes]] = []

    def message(
        self, value: dict[str, Any], descriptor: Descriptor, path: str, way: tuple[str | int, ...] = ()
    ) -> dict[str, Any]:
        """The fields by the names of the contract, without those that are null."""
        fields: dict[str, Any] = {}
        for name, one in value.items():
            field = find_field(descriptor, name, path)
            here = join(path, field.name)
            if field.name in fields:
                raise InvalidInputError(
                    here, f"{here} is there twice: by its name in the contract and by that in JSON."
                )
            if one is not None:
                fields[field.name] = self._field(field, one, here, (*way, field.name))
        return fields

    def _field(self, field: FieldDescriptor, value: object, path: str, way: tuple[str | int, ...]) -> object:
        if not field.is_repeated:
            return self._value(field, value, path, way)
        if not isinstance(value, list):
            raise InvalidInputError(path, f"{path} must be a list, not {shown(value)}.")
        return [self._value(field, one, f"{path}[{index}]", (*way, index)) for index, one in enumerate(value)]

    def _value(self, field: FieldDescriptor, value: object, path: str, way: tuple[str | int, ...]) -> object:
        if field.message_type is not None and not is_written_as_text(field):
            if not isinstance(value, dict):
                raise InvalidInputError(path, f"{path} must be an object, not {shown(value)}.")
            return self.message(value, field.message_type, path, way)
        if field.type == FieldDescriptor.TYPE_BYTES:
            self.bytes_values.append((way, _bytes(value, path)))
            return ""
        return checked_scalar(field, value, path)


def _bytes(value: object, path: str) -> bytes:
    match value:
        case bytes():
            return value
        case LongText():
            text = value.raw
        case str():
            text = memoryview(value.encode("ascii", "replace"))
        case _:
            raise InvalidInputError(path, f"{path} must be a string in base64, not {shown(value)}.")
    try:
        if isinstance(value, LongText) and value.has_escapes:  # some programs write \/ for /
            text = memoryview(json.loads(b'"%b"' % text.tobytes()).encode("ascii", "replace"))
        return decode_base64(text)
    except ValueError:
        begin = shown(bytes(text[:32]).decode("ascii", "replace"))
        message = f"{path} is not base64 (without line breaks, without a prefix such as data:); it begins with {begin}."
        raise InvalidInputError(path, message) from None


def _put(message: Any, way: tuple[str | int, ...], data: bytes) -> None:  # noqa: ANN401 - messages and lists
    *parents, last = way
    for step in parents:
        message = message[step] if isinstance(step, int) else getattr(message, step)
    if isinstance(last, int):
        message[last] = data
    else:
        setattr(message, last, data)


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {name: field for field in descriptor.fields for name in (field.json_name, field.name)}


def _nearest(descriptor: Descriptor, name: str) -> str:
    """The field that a caller may have meant: one with this name in a message of this one, or one with such a name."""
    for field in descriptor.fields:
        if field.message_type is not None and not field.is_repeated and name in _fields(field.message_type):
            return f"{field.name}.{name}"
    return next(iter(get_close_matches(name, _fields(descriptor), 1)), "")
