"""The JSON of a request, within limits that hold before it is parsed.

Unlike the JSON of the contract, it may have very many numbers: the values of a tensor. So nothing here looks at each of
them before the parser, which is in C.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.json_numbers import MAX_ESCAPES, parse_float, parse_int

MAX_ELEMENTS: Final = 2**20  # members of objects and elements of lists in one text
_BYTES_PER_ELEMENT: Final = 64  # parsed: an empty list, of three bytes in the text, and its place in another list
_SEPARATORS: Final = (b",", b"[", b"{")


def parsed_bytes(text: bytes, max_elements: int = MAX_ELEMENTS) -> int:
    """About how many bytes the parts of a JSON text take when it is parsed, beside their strings.

    Raises:
        InvalidInputError: it has too many elements.
    """
    count = sum(text.count(separator) for separator in _SEPARATORS)  # those in strings too
    if count > max_elements:
        raise InvalidInputError("", f"The JSON has {count:,} elements; at most {max_elements:,} are read.")
    return count * _BYTES_PER_ELEMENT


def parse_json(text: bytes, max_elements: int = MAX_ELEMENTS) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text in UTF-8. Blocks for a while if it is large.

    Raises:
        InvalidInputError: it is not JSON, or has too many elements.
    """
    parsed_bytes(text, max_elements)
    if text.count(b"\\") > MAX_ESCAPES:
        raise InvalidInputError("", f"The JSON has more than {MAX_ESCAPES:,} backslashes.")
    try:
        return json.loads(text.decode(), parse_int=parse_int, parse_float=parse_float, parse_constant=_reject_constant)
    except RecursionError:
        raise InvalidInputError("", "The JSON is nested too deeply.") from None
    except ValueError as error:  # the errors of json and of the decoder are of this class
        raise InvalidInputError("", f"This is not JSON in UTF-8: {error}.") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a value of JSON")
