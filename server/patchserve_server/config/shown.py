"""Settings as texts for people and files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]+(?=@)")  # a password may have an @ itself
HIDDEN: Final = "***"

Shown = str | int | float | bool | None


def shown_value(value: object) -> Shown:
    """The value of a setting as JSON and TOML have it; secrets, such as the password in a URL, are hidden."""
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, str | Path):
        return _CREDENTIALS.sub(HIDDEN, str(value))
    if isinstance(value, bool | int | float) or value is None:
        return value
    raise TypeError(f"A setting has the type {type(value).__name__}.")


def toml_value(value: Shown) -> str:
    """A value as TOML writes it."""
    # The texts of JSON are texts of TOML, but for one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
