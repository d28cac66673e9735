"""Text of any origin, made safe for a terminal: names of files, messages of a server."""

from __future__ import annotations

from typing import TextIO
from unicodedata import combining, east_asian_width

from patchserve_client._plain_text import one_line


def escaped(text: str, stream: TextIO) -> str:
    """The text on one line, with escapes for what is unsafe or cannot be written in the stream's encoding."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)


def width_of(text: str) -> int:
    """The columns that a text takes on a terminal: two for each Chinese character, none for a combining accent."""
    return sum((not combining(char)) * (1 + (east_asian_width(char) in "FW")) for char in text)
