"""What takes Python's JSON parser very long. No other thread runs while it works, so the whole server would wait."""

from __future__ import annotations

from typing import Final

MAX_NUMBER: Final = 64  # characters; a double needs 24. One of 800 takes 50 microseconds, and a body has room for many.
MAX_ESCAPES: Final = 2**20  # backslashes; some programs write \\/ for /, and one of 64 characters of base64 is a /


def parse_int(text: str) -> int:
    """Raises ValueError if the number is too long."""
    return int(_short(text))


def parse_float(text: str) -> float:
    """Raises ValueError if the number is too long."""
    return float(_short(text))


def _short(text: str) -> str:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number has more than {MAX_NUMBER} characters")
    return text
