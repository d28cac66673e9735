"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun: 1 image, 2 images."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
