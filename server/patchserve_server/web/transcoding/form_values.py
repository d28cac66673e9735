"""From a multipart form to a JSON object.

Each part has the name of a field. A file fills a field of bytes, or the next place in a list of them. Any other part is
text, as in a query; that of a message or a list is JSON.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.multipart import Form, FormFile
from patchserve_server.web.transcoding.json_text import parse_json
from patchserve_server.web.transcoding.scalars import is_written_as_text
from patchserve_server.web.transcoding.text_values import place, value_of


def object_of_form(form: Form, descriptor: Descriptor, max_elements: int) -> dict[str, Any]:
    """The JSON object; a file in it is `bytes`.

    If the form has no names for images, those of their files are taken: `image_name` for `image`, `image_names` for
    `images`.

    Raises:
        InvalidInputError: a part does not belong to a field, or has another kind of content.
        MalformedMessageError: the text of a message or a list is not JSON.
    """
    fields: dict[str, Any] = {}
    for name, text in form.values.items():
        field, owner, _ = place(fields, descriptor, name)
        is_json = field.is_repeated or (field.message_type is not None and not is_written_as_text(field))
        owner[field.name] = parse_json(text.encode(), max_elements) if is_json else value_of(field, text)
    by_field: dict[str, list[FormFile]] = {}
    for file in form.files:
        by_field.setdefault(file.field, []).append(file)
    for name, files in by_field.items():
        _add_files(fields, descriptor, name, files)
    return fields


def _add_files(fields: dict[str, Any], descriptor: Descriptor, name: str, files: list[FormFile]) -> None:
    field, owner, path = place(fields, descriptor, name)
    if field.type != FieldDescriptor.TYPE_BYTES:
        raise InvalidInputError(path, f"{path} takes no file.")
    if len(files) > 1 and not field.is_repeated:
        raise InvalidInputError(path, f"{path} has {len(files)} files; it takes one.")
    names, contents = [file.filename for file in files], [file.data for file in files]
    owner_fields = field.containing_type.fields_by_name if field.containing_type is not None else {}
    names_field = f"{field.name.removesuffix('s')}_names" if field.is_repeated else f"{field.name}_name"
    if names_field in owner_fields and any(names):
        owner.setdefault(names_field, names if field.is_repeated else names[0])
    owner[field.name] = contents if field.is_repeated else contents[0]
