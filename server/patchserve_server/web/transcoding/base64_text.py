"""Decodes base64 strictly, and in pieces: other threads can run between them."""

from __future__ import annotations

import binascii
from typing import Final

_PIECE: Final = 2**20  # characters; four of them are three bytes
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: memoryview) -> bytes:
    """The bytes of a text in the alphabet of RFC 4648, or in that for URLs, with or without padding.

    Raises:
        binascii.Error: it has other characters, or a length that no bytes have.
    """
    try:
        return _decode(text)
    except binascii.Error:  # protobuf's JSON mapping takes all of them
        standard = text.tobytes().translate(_URL_SAFE).rstrip(b"=")
        return _decode(memoryview(standard + b"=" * (-len(standard) % 4)))


def _decode(text: memoryview) -> bytes:
    data = bytearray()
    for start in range(0, len(text), _PIECE):
        piece = binascii.a2b_base64(text[start : start + _PIECE], strict_mode=True)
        if start + _PIECE < len(text) and len(piece) < _PIECE // 4 * 3:
            raise binascii.Error("padding before the end")
        data += piece
    return bytes(data)
