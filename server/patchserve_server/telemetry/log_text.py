"""Text for a log, which others can influence: on one line, without anything that a terminal would obey."""

from __future__ import annotations

import math
from typing import Any, Final

MAX_TEXT: Final = 1000  # characters of one value
MAX_EXCEPTION: Final = 20_000  # characters of a traceback


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    r"""The text on one line, at most `limit` characters of it.

    Control characters, line breaks, marks that turn the direction of text and everything else that shows nothing are
    written as escapes, such as `\n`, `\x1b` and `\u202e`.
    """
    if len(text) > limit:
        text = f"{text[:limit]}... and {len(text) - limit} more characters"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def traceback_lines(text: str, indent: str) -> str:
    """A traceback: each of its lines as in `one_line`. Indented, none looks like a line of the log."""
    lines = text[:MAX_EXCEPTION].rstrip("\n").split("\n")
    if len(text) > MAX_EXCEPTION:
        lines.append("... the rest is left out")
    return "\n".join(indent + one_line(line) for line in lines)


def harmless(value: Any) -> Any:  # noqa: ANN401 - whatever a line has
    """A value of a line: numbers as they are, of bytes their number, everything else as text on one line."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return one_line(str(value))


def _escape(character: str) -> str:
    return ascii(character)[1:-1]
