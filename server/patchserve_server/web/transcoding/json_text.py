"""From the bytes of a body to JSON values, within limits that hold before they are parsed.

Long strings, which are images in base64, are taken out first: they are never copied as text. What remains is short, so
its depth and its number of elements can be checked before it takes memory.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from patchserve_server.contract.methods import MAX_TEXT_BYTES
from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError, RequestTooLargeError
from patchserve_server.web.json_numbers import MAX_ESCAPES, parse_float, parse_int
from patchserve_server.web.transcoding.shown import shown

MAX_DEPTH: Final = 16  # of objects and lists; the requests of the contract need 5
MAX_BYTES_BESIDE_LONG_TEXTS: Final = 2**20
_LONG_ESCAPED_BYTES: Final = 8 * MAX_TEXT_BYTES  # an escaped character takes 6 bytes
_MAX_BACKSLASHES: Final = 1024  # in a row
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class LongText:
    """A long string, as it stands between its quotes."""

    raw: memoryview
    has_escapes: bool


def parse_json(body: bytes, max_elements: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a body; in it, a long string is a LongText.

    Args:
        body: UTF-8.
        max_elements: how many names and elements of lists there may be.

    Raises:
        MalformedMessageError: it is not JSON, is too deep, or has a name twice in one object.
        InvalidInputError: it has too many elements.
        RequestTooLargeError: it has too many bytes beside long strings.
    """
    if body.count(b"\\") > MAX_ESCAPES:
        raise MalformedMessageError(f"The JSON has more than {MAX_ESCAPES:,} backslashes.")
    pieces: list[bytes] = []
    long_texts: dict[str, LongText] = {}
    nonce = secrets.token_hex(8)  # a caller who knew the keys could have one image counted once and used often
    for piece, long_text in _split(body, max_elements):
        pieces.append(piece)
        if long_text is not None:
            key = f"{nonce}-{len(long_texts)}"
            long_texts[key] = long_text
            pieces.append(f'{{"": "{key}"}}'.encode())
    rest = b"".join(pieces)
    _check_structure(rest, max_elements + 2 * len(long_texts))
    return _loads(rest, long_texts)


def _split(body: bytes, max_elements: int) -> Iterator[tuple[bytes, LongText | None]]:
    """The body in pieces, each with the long string after it."""
    quotes_left, start, length = 4 * max_elements + 2, 0, 0
    view = memoryview(body)
    begin = body.find(b'"')
    while begin >= 0:
        end = begin
        while True:
            if (quotes_left := quotes_left - 1) < 0:
                raise _too_many(max_elements)
            end = body.find(b'"', end + 1)
            if end < 0:
                raise MalformedMessageError("The body is not JSON: a string has no end.")
            if not _is_escaped(body, begin + 1, end):
                break
        if end - begin > MAX_TEXT_BYTES + 1:  # no text of the contract, unless an escape made it longer
            has_escapes = body.find(b"\\", begin, end) >= 0
            if not has_escapes or end - begin > _LONG_ESCAPED_BYTES:
                length = _checked_length(length + begin - start)
                yield body[start:begin], LongText(view[begin + 1 : end], has_escapes)
                start = end + 1
        begin = body.find(b'"', end + 1)
    _checked_length(length + len(body) - start)
    yield body[start:], None


def _is_escaped(body: bytes, start: int, quote: int) -> bool:
    before = body[max(start, quote - _MAX_BACKSLASHES) : quote]
    backslashes = len(before) - len(before.rstrip(b"\\"))
    if backslashes == _MAX_BACKSLASHES:
        raise MalformedMessageError("The body has too many backslashes in a row.")
    return backslashes % 2 == 1


def _checked_length(length: int) -> int:
    if length > MAX_BYTES_BESIDE_LONG_TEXTS:
        message = f"The JSON has more than {MAX_BYTES_BESIDE_LONG_TEXTS:,} bytes beside its images."
        raise RequestTooLargeError(message)
    return length


def _check_structure(text: bytes, max_elements: int) -> None:
    depth = elements = 0
    for token in _STRUCTURE.finditer(text):
        match text[token.start()]:
            case 0x5B | 0x7B:  # [ {
                depth, elements = depth + 1, elements + 1
            case 0x5D | 0x7D:  # ] }
                depth -= 1
            case 0x2C:  # ,
                elements += 1
        if depth < 0:
            raise MalformedMessageError("The body is not JSON: a bracket closes nothing.")
        if depth > MAX_DEPTH:
            raise MalformedMessageError(f"The JSON is nested more than {MAX_DEPTH} deep.")
        if elements > max_elements:
            raise _too_many(max_elements)


def _too_many(max_elements: int) -> InvalidInputError:
    return InvalidInputError("", f"The message has more than {max_elements:,} fields and list elements.")


def _loads(text: bytes, long_texts: dict[str, LongText]) -> Any:  # noqa: ANN401
    def object_of(pairs: list[tuple[str, Any]]) -> Any:  # noqa: ANN401
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                raise MalformedMessageError(f"The JSON has {shown(name)} twice in one object.")
            fields[name] = value
        key = fields.get("")
        return long_texts.get(key, fields) if isinstance(key, str) else fields

    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=object_of,
            parse_int=parse_int,
            parse_float=parse_float,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise MalformedMessageError("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise MalformedMessageError(f"The body is not JSON: {error.msg} (line {error.lineno}).") from None
    except ValueError:
        raise MalformedMessageError("The JSON has a number with too many digits.") from None


def _no_constant(name: str) -> NoReturn:
    raise MalformedMessageError(f'JSON has no number {name}; where one is allowed, write "{name}".')
