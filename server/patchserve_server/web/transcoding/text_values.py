"""Fields whose values are text, such as those of a query: `output.overlay=true`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.transcoding.json_text import parse_json
from patchserve_server.web.transcoding.json_values import find_field, join

_BOOLS: Final = {"true": True, "false": False}


def add_text(
    fields: dict[str, Any], descriptor: Descriptor, name: str, texts: Sequence[str], max_elements: int
) -> None:
    """Adds one field to a JSON object.

    Args:
        fields: the object, by the names of the contract; is changed.
        descriptor: of the message that the object stands for.
        name: of the field; dots lead into messages.
        texts: its values; a field that is not a list takes one. A message is JSON.
        max_elements: of a message.

    Raises:
        InvalidInputError: there is no such field, it has a value already, or has several but takes one.
        MalformedMessageError: a message is not JSON.
    """
    field, fields, path = _place(fields, descriptor, name)
    if field.name in fields:
        raise InvalidInputError(path, f"{path} has several values.")
    values = [_json_value(field, text, max_elements) for text in texts]
    if not field.is_repeated and len(values) > 1:
        raise InvalidInputError(path, f"{path} has {len(values)} values; it takes one.")
    fields[field.name] = values if field.is_repeated else values[0]


def _place(fields: dict[str, Any], descriptor: Descriptor, name: str) -> tuple[FieldDescriptor, dict[str, Any], str]:
    """The field, the object that it belongs to, and its path."""
    path = ""
    *parents, last = name.split(".")
    for step in parents:
        parent = find_field(descriptor, step, path)
        path = join(path, parent.name)
        if parent.message_type is None or parent.is_repeated:
            raise InvalidInputError(path, f"{path} has no fields of its own, so no dot may follow.")
        fields, descriptor = fields.setdefault(parent.name, {}), parent.message_type
    field = find_field(descriptor, last, path)
    return field, fields, join(path, field.name)


def _json_value(field: FieldDescriptor, text: str, max_elements: int) -> object:
    if field.message_type is not None:
        return parse_json(text.encode("utf-8", "replace"), max_elements)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _BOOLS.get(text, text)
    return text
