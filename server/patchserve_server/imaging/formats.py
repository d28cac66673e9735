"""The formats of image files."""

from __future__ import annotations

from typing import Final

_ENDING_BY_START: Final = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II": "tif",
    b"MM": "tif",
}


def file_ending(data: bytes) -> str:
    """The usual end of the name of such a file: jpg, png, webp, bmp or tif; img for others."""
    return next((ending for start, ending in _ENDING_BY_START.items() if data.startswith(start)), "img")
