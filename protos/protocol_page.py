"""Writes docs/protocol.md to standard output from an image of the contract, comments included.

cd protos && buf build --path patchserve/v1 --exclude-imports -o - | python protocol_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
File = descriptor_pb2.FileDescriptorProto
PACKAGE = "patchserve.v1"
INTRODUCTION = f"""# The contract `{PACKAGE}`

Made by `make protos` from [the proto files](../protos/patchserve/v1/service.proto): do not edit. How it may change is
in [clients](clients.md#what-v1-promises), what a call can fail with in [errors](errors.md).
"""


def main() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(sys.stdin.buffer.read()).file
    ours = sorted((file for file in files if file.package == PACKAGE), key=lambda file: not file.service)
    parts = [INTRODUCTION]
    for file in ours:
        comments = comments_of(file)
        parts += services(file, comments)
        parts += [message(item, comments, (4, index)) for index, item in enumerate(file.message_type)]
        parts += [enumeration(item, comments, (5, index)) for index, item in enumerate(file.enum_type)]
    sys.stdout.write("\n".join(parts))


def comments_of(file: File) -> dict[tuple[int, ...], str]:
    """The path of a declaration, as descriptors count them, -> its comment; paragraphs apart."""
    places = file.source_code_info.location
    return {tuple(place.path): place.leading_comments.strip() for place in places if place.leading_comments}


def services(file: File, comments: dict[tuple[int, ...], str]) -> Iterator[str]:
    for index, service in enumerate(file.service):
        lines = [
            f"## {service.name}\n",
            f"{text(comments[6, index])}\n",
            "| method | takes | answers | |",
            "| --- | --- | --- | --- |",
        ]
        for number, method in enumerate(service.method):
            takes = ("stream of " if method.client_streaming else "") + linked(method.input_type)
            answers = ("stream of " if method.server_streaming else "") + linked(method.output_type)
            lines.append(f"| `{method.name}` | {takes} | {answers} | {cell(comments[6, index, 2, number])} |")
        yield "\n".join([*lines, ""])


def message(item: descriptor_pb2.DescriptorProto, comments: dict[tuple[int, ...], str], at: tuple[int, ...]) -> str:
    lines = [f"### {item.name}\n", f"{text(comments[at])}\n"]
    if item.field:
        lines += ["| field | type | number | |", "| --- | --- | --- | --- |"]
    for index, field in enumerate(item.field):
        row = (f"`{field.name}`", type_of(field, item), str(field.number), cell(comments[*at, 2, index]))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""] if item.field else lines)


def enumeration(item: Any, comments: dict[tuple[int, ...], str], at: tuple[int, ...]) -> str:  # noqa: ANN401
    lines = [f"### {item.name}\n", f"{text(comments[at])}\n", "| value | number | |", "| --- | --- | --- |"]
    rows = enumerate(item.value)
    lines += [f"| `{value.name}` | {value.number} | {cell(comments[*at, 2, index])} |" for index, value in rows]
    return "\n".join([*lines, ""])


def type_of(field: Field, owner: descriptor_pb2.DescriptorProto) -> str:
    named = field.type in (Field.TYPE_MESSAGE, Field.TYPE_ENUM)
    kind = linked(field.type_name) if named else Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {kind}"
    if field.proto3_optional:
        return f"optional {kind}"
    return f"{kind}, of `{owner.oneof_decl[field.oneof_index].name}`" if field.HasField("oneof_index") else kind


def linked(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(f".{PACKAGE}.") else f"`{type_name.lstrip('.')}`"


def text(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.splitlines())


def cell(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
