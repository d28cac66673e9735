"""The headers of one part of a multipart form: RFC 7578."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from python_multipart.multipart import parse_options_header

from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError

MAX_FIELD_BYTES: Final = 64
_MAX_PARAMETERS: Final = 16  # of a header; a semicolon in a file's name counts as well
_AS_IT_IS: Final = (b"7bit", b"8bit", b"binary")
_UTF_8: Final = (b"utf-8", b"utf8", b"us-ascii")


@dataclass(frozen=True, slots=True)
class PartHead:
    """What a part is.

    Args:
        field: the name of its field.
        filename: as it was sent, unchecked; None: the part is a text value.
    """

    field: str
    filename: str | None


def parsed_header(value: bytes | str) -> tuple[bytes, dict[bytes, bytes]]:
    """The value of a header, and its parameters.

    Raises:
        MalformedMessageError: it has very many, which the parser looks at very often.
    """
    text = value.encode("latin-1") if isinstance(value, str) else value
    if text.count(b";") > _MAX_PARAMETERS:
        raise MalformedMessageError(f"A header has more than {_MAX_PARAMETERS} parameters.")
    return parse_options_header(text)


def part_head(headers: Mapping[bytes, bytes]) -> PartHead:
    """The head of a part, from its headers by name in lower case.

    Raises:
        MalformedMessageError: it is not a part of a form.
        InvalidInputError: its text or its bytes are encoded in a way that this server does not read.
    """
    kind, parameters = parsed_header(headers.get(b"content-disposition", b""))
    if kind != b"form-data" or b"name" not in parameters:
        message = 'Each part of a multipart form needs the header `Content-Disposition: form-data; name="FIELD"`.'
        raise MalformedMessageError(message)
    field = _field(parameters[b"name"])
    _check_encodings(field, headers)
    filename = parameters.get(b"filename")
    return PartHead(field, None if filename is None else filename.decode(errors="replace"))


def _field(name: bytes) -> str:
    try:
        field = name.decode()
    except UnicodeDecodeError:
        field = ""
    if not field or len(name) > MAX_FIELD_BYTES or not field.isprintable():
        message = f"The name of a form's field is 1 to {MAX_FIELD_BYTES} bytes of printable characters in UTF-8."
        raise MalformedMessageError(message)
    return field


def _check_encodings(field: str, headers: Mapping[bytes, bytes]) -> None:
    kind, parameters = parsed_header(headers.get(b"content-type", b""))
    if kind.startswith(b"multipart/"):
        raise InvalidInputError(field, f'Field "{field}" has parts of its own. Send each file as a part of the form.')
    if parameters.get(b"charset", b"utf-8").lower() not in _UTF_8:
        raise InvalidInputError(field, f'Field "{field}" has another charset than UTF-8. Send text in UTF-8.')
    if headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in _AS_IT_IS:
        message = f'Field "{field}" has a Content-Transfer-Encoding. Send its bytes as they are.'
        raise InvalidInputError(field, message)
