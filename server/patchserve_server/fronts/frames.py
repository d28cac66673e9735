"""Frames on a connection between a front and its engine: a head in JSON, and bytes.

| bytes | what |
| --- | --- |
| 4 | length of the head, little endian |
| 8 | length of the body, little endian |
| | the head: a JSON object |
| | the body |
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

Head: TypeAlias = dict[str, Any]
Body: TypeAlias = bytes | bytearray | memoryview

_LENGTHS: Final = struct.Struct("<IQ")
_NUMBERS: Final = ("n", "re", "cancel")  # of requests
MAX_HEAD_BYTES: Final = 2**20
MAX_BODY_BYTES: Final = 2**31


class FramesError(Exception):
    """What came is no frame."""


def encoded(head: Head, body: Body = b"") -> tuple[bytes, Body]:
    """The bytes of a frame, in two parts so that a long body is not copied."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), len(body)) + text, body


class FrameConnection(asyncio.Protocol):
    """One end of a connection. What is sent in one turn of the loop goes out together.

    Args:
        received: called with each frame.
        lost: called when the connection has ended, whatever the cause.
    """

    def __init__(self, received: Callable[[Head, bytes], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._unsent: list[Body] = []
        self.received_bytes = 0
        self.max_body_bytes = MAX_BODY_BYTES

    @property
    def unsent_bytes(self) -> int:
        """What the system has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._transport = None
        self._unsent.clear()
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self.received_bytes += len(data)
        try:
            while (frame := self._next_frame()) is not None:
                self._received(*frame)
        except (FramesError, ValueError):
            self.close()

    def _next_frame(self) -> tuple[Head, bytes] | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        head_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
        if head_bytes > MAX_HEAD_BYTES or body_bytes > self.max_body_bytes:
            raise FramesError
        body_at = _LENGTHS.size + head_bytes
        end = body_at + body_bytes
        if len(self._buffer) < end:
            return None
        try:
            head = json.loads(self._buffer[_LENGTHS.size : body_at])
        except RecursionError:
            raise FramesError from None
        if not isinstance(head, dict) or not all(type(head.get(name, 0)) is int for name in _NUMBERS):
            raise FramesError
        body = bytes(memoryview(self._buffer)[body_at:end]) if body_bytes else b""
        del self._buffer[:end]
        return head, body

    def send(self, head: Head, body: Body = b"") -> None:
        """Sends a frame; does nothing if the connection has ended."""
        if self._transport is None:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        start, rest = encoded(head, body)
        self._unsent.append(start)
        if rest:
            self._unsent.append(rest)

    def _flush(self) -> None:
        if self._transport is not None and self._unsent:
            self._transport.writelines(self._unsent)
        self._unsent = []

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()
