"""What a caller sent, in the message of an error: short, on one line, and always valid text."""

from __future__ import annotations

import json
from typing import Final

_MAX_CHARACTERS: Final = 48
_KINDS: Final[dict[type, str]] = {dict: "an object", list: "a list", bytes: "a file"}


def shown(value: object) -> str:
    """JSON of the value if it is short; else what kind of value it is."""
    if isinstance(value, str):
        text = json.dumps(value[: _MAX_CHARACTERS + 1])
        return text if len(text) <= _MAX_CHARACTERS else f'{text[:_MAX_CHARACTERS]}..."'
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)[:_MAX_CHARACTERS]
    return _KINDS.get(type(value), "a long text")
