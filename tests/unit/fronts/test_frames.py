"""Frames of a peer that is no front."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from patchserve_server.fronts.frames import MAX_HEAD_BYTES, FrameConnection


class Transport(asyncio.Transport):
    """Knows whether it was ended."""

    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def frame(head: bytes, body_bytes: int = 0) -> bytes:
    return struct.pack("<IQ", len(head), body_bytes) + head


@pytest.mark.parametrize(
    "data",
    [
        frame(b"[" * MAX_HEAD_BYTES),
        frame(b'{"a":' * 100_000),
        frame(b"[]"),
        frame(b"\xff"),
        frame(b"1" * 5000),
        frame(b'{"n": []}'),
        frame(b'{"n": true}'),
        frame(b'{"re": {}}'),
        frame(b'{"cancel": {}}'),
        frame(b"{}", 2**63),
        struct.pack("<IQ", MAX_HEAD_BYTES + 1, 0),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # begins TLS
        b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n",
    ],
)
def test_what_is_no_frame_ends_the_connection_and_reaches_nobody(data: bytes) -> None:
    received: list[Any] = []
    connection, transport = FrameConnection(lambda *frame: received.append(frame), lambda: None), Transport()
    connection.connection_made(transport)
    connection.data_received(data)
    assert transport.is_aborted
    assert not received
