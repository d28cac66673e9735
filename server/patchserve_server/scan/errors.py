"""What keeps one image from being inspected, and what ends a scan."""

from __future__ import annotations

from typing import Final

UNREADABLE: Final = "UNREADABLE_IMAGE"
"""The reason in a row, beside those of docs/errors.md."""


class UnreadableImageError(Exception):
    """The bytes of one image cannot be had. The scan goes on."""


class ScanError(Exception):
    """The scan cannot begin, or cannot go on now. The message says what to do. Nothing that was published is lost."""
