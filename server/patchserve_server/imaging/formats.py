"""The formats of image files, by their first bytes."""

from __future__ import annotations

from typing import Final, NamedTuple


class _Format(NamedTuple):
    media_type: str
    ending: str


_TIFF: Final = _Format("image/tiff", "tif")
_FORMAT_BY_START: Final = {
    b"\xff\xd8": _Format("image/jpeg", "jpg"),
    b"\x89PNG": _Format("image/png", "png"),
    b"RIFF": _Format("image/webp", "webp"),
    b"BM": _Format("image/bmp", "bmp"),
    b"II": _TIFF,
    b"MM": _TIFF,
}
_OTHER: Final = _Format("", "img")


def media_type_of(data: bytes) -> str:
    """The media type of an image that `decode_image` accepts; empty for other bytes."""
    return _format_of(data).media_type


def file_ending(data: bytes) -> str:
    """The usual end of the name of such a file: jpg, png, webp, bmp or tif; img for others."""
    return _format_of(data).ending


def _format_of(data: bytes) -> _Format:
    return next((format_ for start, format_ in _FORMAT_BY_START.items() if data.startswith(start)), _OTHER)
