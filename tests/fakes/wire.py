"""Bytes of protobuf messages, written by hand."""

from __future__ import annotations

from hypothesis import strategies as st


def varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def delimited(number: int, value: bytes) -> bytes:
    """A text, bytes, message or list of numbers as field `number`."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def tagged() -> st.SearchStrategy[bytes]:
    """One element of any field and wire type, usually whole."""
    return st.builds(
        lambda number, kind, value: varint(number << 3 | kind) + value,
        st.integers(0, 12),
        st.integers(0, 7),
        st.binary(max_size=12) | st.binary(max_size=9).map(lambda value: varint(len(value)) + value),
    )
