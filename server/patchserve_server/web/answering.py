"""The outermost frame of every request: its response goes out as long as its caller reads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from patchserve_server.domain.errors import StalledReaderError
from patchserve_server.serving.time_limits import within
from patchserve_server.web.peers import peer_of

_PIECE_BYTES: Final = 128 * 2**10  # of a body; each one waits until the system has taken the one before

_log = logging.getLogger(__name__)


class Answering:
    """Runs the application for one request, as its own task.

    Its `send` returns when the system has taken what was sent before, and so holds back whoever writes. It ends the
    connection of a caller who does not read, and raises StalledReaderError then.

    Args:
        app: answers requests.
        write_timeout_s: how long a part of a response waits for a caller who does not read.
    """

    def __init__(self, app: ASGIApp, write_timeout_s: float) -> None:
        self._app = app
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer, is_complete = peer_of(scope), False

        async def send_in_time(message: Message) -> None:
            nonlocal is_complete
            stalled = f"The caller does not read: a part of its response has waited for {self._write_timeout_s:g} s."
            for piece in _pieces(message):
                try:
                    async with within(self._write_timeout_s, stalled, StalledReaderError):
                        await send(piece)
                except StalledReaderError:
                    peer.abort()  # all that is sent later is dropped
                    raise
            is_complete = message["type"].endswith("http.response.body") and not message.get("more_body")

        try:
            await self._app(scope, receive, send_in_time)
        except asyncio.CancelledError:
            peer.abort()  # nobody waits for this task: its caller has left, or the grace time of the drain is over
        except StalledReaderError:
            pass  # the call has logged it
        except Exception:  # noqa: BLE001 - a bug: nobody else hears of it
            _log.exception("A request failed outside of a call")
            if not is_complete:
                peer.abort()


def _pieces(message: Message) -> Iterator[Message]:
    """The message in pieces, the last one without a body: when it is sent, the system has taken all others."""
    body = message.get("body", b"")
    if message["type"] != "http.response.body" or not body:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        yield {"type": message["type"], "body": body[start : start + _PIECE_BYTES], "more_body": True}
    if not message.get("more_body"):
        yield {"type": message["type"], "body": b""}
