"""Base64 of any length, strictly."""

from __future__ import annotations

import base64
import binascii
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.web.transcoding.base64_text import decode_base64

PIECE = 2**20
LONG = bytes(range(251)) * 8000  # more than two pieces


@given(st.binary(), st.booleans(), st.booleans())
def test_what_is_encoded_comes_back(data: bytes, for_urls: bool, padded: bool) -> None:
    text = base64.urlsafe_b64encode(data) if for_urls else base64.b64encode(data)
    assert decode_base64(memoryview(text if padded else text.rstrip(b"="))) == data


@pytest.mark.parametrize("length", [PIECE // 4 * 3 + more for more in (-1, 0, 1, 2)] + [len(LONG)])
def test_a_long_text_comes_back_from_its_pieces(length: int) -> None:
    data = LONG[:length]
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert decode_base64(memoryview(text)) == data


@given(st.binary(max_size=12).filter(lambda text: re.fullmatch(rb"[A-Za-z0-9+/_-]*={0,2}", text) is None))
def test_other_characters_are_refused(text: bytes) -> None:
    with pytest.raises(binascii.Error):
        decode_base64(memoryview(text))


@pytest.mark.parametrize("position", [0, PIECE - 2, PIECE - 1, PIECE, 2 * PIECE - 1])
@pytest.mark.parametrize("character", [b"=", b"\n", b" ", b"\xff"])
def test_a_wrong_character_is_refused_wherever_it_is(position: int, character: bytes) -> None:
    text = base64.b64encode(LONG)
    with pytest.raises(binascii.Error):
        decode_base64(memoryview(text[:position] + character + text[position + 1 :]))
