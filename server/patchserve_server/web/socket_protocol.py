"""WebSockets with real flow control: uvicorn's protocol, with limits for callers that mean harm or are just fast.

Beside what uvicorn does, it

- reads from the connection only while the application asks for a message, so TCP holds the sender back;
- parses what it has read in small pieces: 256 KiB of tiny frames would take the event loop half a second;
- reads nothing while the caller does not read: the answers to its pings would pile up;
- asks before it receives a message of more than LARGE_BYTES;
- ends a connection with very many control frames or tiny fragments, which cost much more than their bytes;
- waits for the answer to a ping as long as other things come, or are not read: it waits behind them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Close, CloseCode, Frame

LARGE_BYTES: Final = 512 * 2**10  # of one message, which the parser keeps until its end

_PIECE_BYTES: Final = 4096
_BURST: Final = 256  # control frames and fragments at once
_PER_SECOND: Final = 32.0  # and as many more in the long run
_FRAGMENT_BYTES: Final = 256  # a fragment of this size or more counts for nothing
_PING_INTERVAL_S: Final = 20.0
_DISCARD_S: Final = 2.0
_LARGE: Final = {"type": "large"}  # in the queue: what has come of a message is large, and nothing is read until it may


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection. Uvicorn creates it after the request for an upgrade."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self._unparsed = memoryview(b"")
        self._spare_frames = float(_BURST)
        self._counted_at_s = self.loop.time()
        self._received_at_s = 0.0
        self._fragment_bytes = 0  # of a message that has not ended
        self._may_be_large = False
        self._failed = False

    async def receive_large(self) -> Any:  # noqa: ANN401 - an event of ASGI
        """Receives a message of which LARGE_BYTES have come. A subclass may wait before it does."""
        self._may_be_large = True
        try:
            return await self._next()
        finally:
            self._may_be_large = False

    @property
    def unfinished_bytes(self) -> int:
        """What has come of a message that has not ended."""
        return len(self.conn.reader.buffer) + self._fragment_bytes

    @property
    def _may_read(self) -> bool:
        return not self.read_paused and self.writable.is_set()

    def data_received(self, data: bytes) -> None:
        self._received_at_s = self.loop.time()
        if self._failed:
            return
        self._unparsed = memoryview(b"".join([self._unparsed, data]) if self._unparsed else data)
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and self._may_read and not self._failed:
            piece, self._unparsed = self._unparsed[:_PIECE_BYTES], self._unparsed[_PIECE_BYTES:]
            super().data_received(piece)  # type: ignore[arg-type] # the parser copies it
            self._check_size()

    def _check_size(self) -> None:
        if self.unfinished_bytes <= LARGE_BYTES or self._may_be_large or self._failed:
            return
        if self.close_sent:  # nobody receives this message any more
            self._discard()
        elif not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()
            self.queue.put_nowait(_LARGE)  # type: ignore[arg-type] # `receive` takes it

    async def receive(self) -> Any:  # noqa: ANN401 - an event of ASGI
        await asyncio.sleep(0)  # what the message before has started comes first, also if the next one is here
        message = await self._next()
        return await self.receive_large() if message is _LARGE else message

    async def _next(self) -> Any:  # noqa: ANN401
        if self.queue.empty() and self.read_paused:
            self.read_paused = False
            self._read_on()
        return await self.queue.get()

    async def send(self, message: Any) -> None:  # noqa: ANN401 - an event of ASGI
        if self._failed:
            raise ClientDisconnected
        await super().send(message)
        self._check_size()
        self._parse()  # it reads on after a close, up to the caller's own

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self._read_on()

    def _read_on(self) -> None:
        self._parse()
        if self._may_read:
            self.transport.resume_reading()

    def keepalive_timeout(self) -> None:
        if not self._may_read or self._received_at_s > self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count_frame()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_frame()

    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        self._count_fragment(event)

    def handle_bytes(self, event: Frame) -> None:
        super().handle_bytes(event)
        self._count_fragment(event)

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        self._count_fragment(event)

    def _count_fragment(self, event: Frame) -> None:
        self._fragment_bytes = 0 if event.fin else self._fragment_bytes + len(event.data)
        if not event.fin and len(event.data) < _FRAGMENT_BYTES:
            self._count_frame()

    def _count_frame(self) -> None:
        now_s = self.loop.time()
        gained = (now_s - self._counted_at_s) * _PER_SECOND
        self._spare_frames, self._counted_at_s = min(_BURST, self._spare_frames + gained) - 1, now_s
        if self._spare_frames < 0 and not self.close_sent:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many control frames or tiny fragments")
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Tells the caller why, and discards what still comes: a reset would overtake the reason."""
        if self._failed:
            return
        close = self.conn.close_sent or Close(CloseCode.ABNORMAL_CLOSURE, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._discard()

    def _discard(self) -> None:
        """Drops what has come and what still comes."""
        self._failed = True
        self._unparsed, self.frames, self._fragment_bytes = memoryview(b""), [], 0
        self.conn.reader.discard()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the caller has gone
                self.transport.write_eof()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(_DISCARD_S, self.transport.abort)
        self.transport.resume_reading()


def socket_options(max_message_bytes: int) -> dict[str, Any]:
    """The options of uvicorn for WebSockets."""
    return {
        "ws": SocketProtocol,
        "ws_max_size": max_message_bytes,
        "ws_per_message_deflate": False,  # images are compressed; a small message could become a large one
        "ws_ping_interval": _PING_INTERVAL_S,  # so that nothing on the way takes the connection for dead
        "ws_ping_timeout": _PING_INTERVAL_S,
    }
