"""The media type of an encoded image."""

from __future__ import annotations

from typing import Final

_TYPE_BY_START: Final = {
    b"\xff\xd8": "image/jpeg",
    b"\x89PNG": "image/png",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
    b"II": "image/tiff",
    b"MM": "image/tiff",
}


def media_type_of(data: bytes) -> str:
    """The media type of an image that `decode_image` accepts; empty for other bytes."""
    return next((media_type for start, media_type in _TYPE_BY_START.items() if data.startswith(start)), "")
