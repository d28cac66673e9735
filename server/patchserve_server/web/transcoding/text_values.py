"""Fields whose values are text, such as those of a query: `output.overlay=true`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.transcoding.json_values import find_field, join
from patchserve_server.web.transcoding.scalars import is_written_as_text

_BOOLS: Final = {"true": True, "false": False}


def add_texts(fields: dict[str, Any], descriptor: Descriptor, name: str, texts: Sequence[str]) -> None:
    """Adds the values of one field to a JSON object.

    Args:
        fields: the object, by the names of the contract; is changed.
        descriptor: of the message that the object stands for.
        name: of the field; dots lead into messages.
        texts: its values; a field that is not a list takes one.

    Raises:
        InvalidInputError: there is no such field, it is a message, or it has several values but takes one.
    """
    field, owner, path = place(fields, descriptor, name)
    if field.message_type is not None and not is_written_as_text(field):
        inner = field.message_type.fields[0].name
        raise InvalidInputError(path, f"{path} is a message: name its fields, such as {path}.{inner}.")
    values = [value_of(field, text) for text in texts]
    if not field.is_repeated and len(values) > 1:
        raise InvalidInputError(path, f"{path} has {len(values)} values; it takes one.")
    owner[field.name] = values if field.is_repeated else values[0]


def place(fields: dict[str, Any], descriptor: Descriptor, name: str) -> tuple[FieldDescriptor, dict[str, Any], str]:
    """Where a field belongs: the field, the object that it is in, and its path. Objects on the way are added.

    Raises:
        InvalidInputError: there is no such field, or it has a value already.
    """
    path = ""
    *parents, last = name.split(".")
    for step in parents:
        parent = find_field(descriptor, step, path)
        path = join(path, parent.name)
        if parent.message_type is None or parent.is_repeated or is_written_as_text(parent):
            raise InvalidInputError(path, f"{path} has no fields that a name could lead to.")
        fields, descriptor = fields.setdefault(parent.name, {}), parent.message_type
    field = find_field(descriptor, last, path)
    path = join(path, field.name)
    if field.name in fields:
        raise InvalidInputError(path, f"{path} is there twice.")
    return field, fields, path


def value_of(field: FieldDescriptor, text: str) -> object:
    """The JSON value of a text, for a field that is not a message. It is checked later, with all others."""
    return _BOOLS.get(text, text) if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else text
