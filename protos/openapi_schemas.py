"""JSON schemas of the messages and enums of a compiled contract, in protobuf's JSON mapping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf import descriptor_pb2
from protos.protocol_page import File, comments_of

Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto
Schema = dict[str, Any]

PACKAGE: Final = "patchserve.v1"
# What an error can have beside its code and its message.
DETAILS: Final = ("ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo", "PreconditionFailure", "RequestInfo")
_ANY: Final = ".google.protobuf.Any"
_WELL_KNOWN: Final[dict[str, Schema]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    _ANY: {"$ref": "#/components/schemas/ErrorDetail"},
}
_SCALARS: Final[dict[int, Schema]] = {
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    Field.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    Field.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
}


class Contract:
    """All messages and enums of a descriptor set, by full name with a leading dot."""

    def __init__(self, files: Iterable[File]) -> None:
        self.comments: dict[str, str] = {}  # of each message, field, enum and value
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}
        for file in files:
            comments = comments_of(file)
            self._add(f".{file.package}", file.message_type, file.enum_type, comments, ((4,), (5,)))

    def _add(
        self,
        scope: str,
        messages: Iterable[Message],
        enums: Iterable[descriptor_pb2.EnumDescriptorProto],
        comments: dict[tuple[int, ...], str],
        places: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> None:
        for index, message in enumerate(messages):
            name, place = f"{scope}.{message.name}", (*places[0], index)
            self.messages[name] = message
            self.comments[name] = line_of(comments.get(place, ""))
            for number, field in enumerate(message.field):
                self.comments[f"{name}.{field.name}"] = line_of(comments.get((*place, 2, number), ""))
            self._add(name, message.nested_type, message.enum_type, comments, ((*place, 3), (*place, 4)))
        for index, enum in enumerate(enums):
            name, place = f"{scope}.{enum.name}", (*places[1], index)
            self.enums[name] = enum
            values = [f"{v.name}: {line_of(comments.get((*place, 2, n), ''))}" for n, v in enumerate(enum.value)]
            self.comments[name] = " ".join((line_of(comments.get(place, "")), *values))

    def reachable(self, names: Iterable[str]) -> set[str]:
        """These messages, and the messages and enums that they contain."""
        found: set[str] = set()
        open_names = list(names)
        while open_names:
            if (name := open_names.pop()) not in found and (name in self.enums or self._is_no_map_entry(name)):
                found.add(name)
                open_names += [field.type_name for field in self.fields(name)]
        return found

    def _is_no_map_entry(self, name: str) -> bool:
        return name in self.messages and not self.messages[name].options.map_entry

    def fields(self, name: str) -> Iterable[Field]:
        """The fields of a message; none of an enum."""
        return self.messages[name].field if name in self.messages else ()

    def schema(self, name: str, *, is_request: bool) -> Schema:
        """The schema of a message or an enum. A request has no other fields, a response all that cannot be absent."""
        described = {"description": self.comments[name]}
        if name in self.enums:
            return {"type": "string", **described, "enum": [value.name for value in self.enums[name].value]}
        properties = {field.name: self.property_of(name, field) for field in self.fields(name)}
        required = [field.name for field in self.fields(name) if not _can_be_absent(field)]
        if name.removeprefix(".google.rpc.") in DETAILS:
            type_url = f"type.googleapis.com{name.replace('.', '/', 1)}"
            properties, required = {"@type": {"const": type_url}, **properties}, ["@type", *required]
        schema: Schema = {"type": "object", **described, "properties": properties}
        if is_request:
            return schema | {"additionalProperties": False}
        return schema | ({"required": required} if required else {})

    def property_of(self, owner: str, field: Field) -> Schema:
        """The schema of a field, with its comment."""
        return {**self.type_of(field), "description": self.comments[f"{owner}.{field.name}"]}

    def type_of(self, field: Field) -> Schema:
        """The schema of the values of a field."""
        if field.type_name in self.messages and self.messages[field.type_name].options.map_entry:
            return {"type": "object", "additionalProperties": self.type_of(self.messages[field.type_name].field[1])}
        one = self._single(field)
        return {"type": "array", "items": one} if field.label == Field.LABEL_REPEATED else one

    @staticmethod
    def _single(field: Field) -> Schema:
        if field.type_name:
            known = _WELL_KNOWN.get(field.type_name)
            return dict(known or {"$ref": f"#/components/schemas/{component(field.type_name)}"})
        return dict(_SCALARS[field.type])


def component(name: str) -> str:
    """The name of a schema: that of the message, without our package."""
    return name.removeprefix(f".{PACKAGE}.").lstrip(".")


def error_detail() -> Schema:
    """The schema of what an error has beside its code and message."""
    names = [f"google.rpc.{name}" for name in DETAILS]
    return {
        "description": "A detail of an error; `@type` says which.",
        "anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names],
        "discriminator": {
            "propertyName": "@type",
            "mapping": {f"type.googleapis.com/{name}": f"#/components/schemas/{name}" for name in names},
        },
    }


def leaves(contract: Contract, name: str, prefix: str = "") -> Iterator[tuple[str, str, Field]]:
    """The fields of a message, those of its messages by their paths: path, owner and field. Not those inside lists."""
    for field in contract.fields(name):
        yield f"{prefix}{field.name}", name, field
        if field.type_name in contract.messages and field.label != Field.LABEL_REPEATED:
            yield from leaves(contract, field.type_name, f"{prefix}{field.name}.")


def line_of(comment: str) -> str:
    """A comment as one paragraph."""
    return " ".join(comment.split())


def _can_be_absent(field: Field) -> bool:
    is_single_message = field.type == Field.TYPE_MESSAGE and field.label != Field.LABEL_REPEATED
    return is_single_message or field.proto3_optional or field.HasField("oneof_index")
