"""What a caller sent, in the message of an error: short, on one line, and always valid text."""

from __future__ import annotations

import json
from typing import Final

_MAX_CHARACTERS: Final = 48


def shown(value: object) -> str:
    """JSON of the value if it is short; else what kind of value it is."""
    match value:
        case str():
            text = json.dumps(value[: _MAX_CHARACTERS + 1])
            return text if len(text) <= _MAX_CHARACTERS else f'{text[:_MAX_CHARACTERS]}..."'
        case None | bool() | float():
            return json.dumps(value)
        case int():
            return str(value) if abs(value) < 10**_MAX_CHARACTERS else "a number with more digits"
        case dict():
            return "an object"
        case list():
            return "a list"
        case bytes():
            return "a file"
        case _:
            return "a long text"
