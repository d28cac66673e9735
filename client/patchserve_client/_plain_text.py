"""Text of any origin, made safe to show: names of files, messages of a server."""

from __future__ import annotations

import re

# Control characters (a newline breaks a table, ESC reaches the terminal), line separators, and marks that change the
# direction of text. Surrogates are bytes of a file name that are not valid in the locale.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # how Python stores bytes 0x80 to 0xFF that it cannot decode


def one_line(text: str) -> str:
    """The text on one line, with escapes for what is unsafe."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return f"\\x{code - _FIRST_BYTE + 0x80:02x}"
    return match[0].encode("unicode_escape").decode()
