"""Stored content that breaks the format."""

from __future__ import annotations

_MAX_EXCERPT_CHARACTERS = 160


class DamageError(ValueError):
    """Content that breaks the format. The message completes "it is damaged: " and never contains a path."""


def printable(text: str) -> str:
    """A short excerpt in printable ASCII. A parser's message may quote the damaged file, so it can contain anything."""
    return ascii(text)[1:-1][:_MAX_EXCERPT_CHARACTERS]
