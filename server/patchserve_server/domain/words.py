"""Words for messages and logs."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 reference`, `2 references`, `1,000 references`: for nouns with a regular plural."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
