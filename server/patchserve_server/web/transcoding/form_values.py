"""From a multipart form to a JSON object.

Each part has the name of a field. A file fills a field of bytes, or the next place in a list of them. Any other part is
text, as in a query; the text of a message is JSON.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.multipart import Form, FormFile
from patchserve_server.web.transcoding.json_values import find_field
from patchserve_server.web.transcoding.text_values import add_text


def object_of_form(form: Form, descriptor: Descriptor, max_elements: int) -> dict[str, Any]:
    """The JSON object; a file in it is `bytes`.

    If the form has no names for images, those of their files are taken: `image_name` for `image`, `image_names` for
    `images`.

    Raises:
        InvalidInputError: a part does not belong to a field, or has another kind of content.
        MalformedMessageError: the text of a message is not JSON.
    """
    fields: dict[str, Any] = {}
    for name, text in form.values.items():
        add_text(fields, descriptor, name, [text], max_elements)
    by_field: dict[str, list[FormFile]] = {}
    for file in form.files:
        by_field.setdefault(file.field, []).append(file)
    for name, files in by_field.items():
        _add_files(fields, descriptor, find_field(descriptor, name, ""), files)
    return fields


def _add_files(fields: dict[str, Any], descriptor: Descriptor, field: FieldDescriptor, files: list[FormFile]) -> None:
    name = field.name
    if field.type != FieldDescriptor.TYPE_BYTES:
        raise InvalidInputError(name, f"{name} takes no file.")
    if name in fields or (len(files) > 1 and not field.is_repeated):
        raise InvalidInputError(name, f"{name} has several values; it takes one.")
    names = [file.filename for file in files]
    names_field = f"{name.removesuffix('s')}_names" if field.is_repeated else f"{name}_name"
    if names_field in descriptor.fields_by_name and any(names):
        fields.setdefault(names_field, names if field.is_repeated else names[0])
    contents = [file.data for file in files]
    fields[name] = contents if field.is_repeated else contents[0]
