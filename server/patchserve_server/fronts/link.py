"""A link between a front and its engine: requests with answers, and messages without, in order."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from patchserve_server.domain.call_events import Face, RelayedCall, current_call
from patchserve_server.domain.errors import EngineLostError
from patchserve_server.fronts.errors import error_from_json, error_to_json
from patchserve_server.fronts.frames import Body, FrameConnection, Head
from patchserve_server.serving.tasks import retrieve_error

WATCH_S: Final = 2.0
MISSES: Final = 5  # in a row: so a process that was stopped for a while counts as one miss

_log = logging.getLogger(__name__)


class Handlers(Protocol):
    """What the other side may ask for."""

    async def answer(self, request: Head, body: bytes, /) -> tuple[Head, Body]:
        """The answer to a request `{"do": NAME, ...}`. It is cancelled if the other side does not need it any more."""

    def told(self, message: Head, body: bytes) -> None:
        """Takes a message `{"tell": NAME, ...}`. Returns at once."""


class Link:
    """One end. When the connection ends, whatever the cause, its requests fail and those of the other side end.

    Args:
        handlers: of what the other side asks for.
        ended: called when the connection has ended.
    """

    def __init__(self, handlers: Handlers, ended: Callable[[], None] = lambda: None) -> None:
        self._handlers = handlers
        self._ended = ended
        self.connection = FrameConnection(self._received, self._lost)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Head, bytes]]] = {}
        self._left: dict[int, Callable[[], None]] = {}  # requests that nobody waits for, but whose answer must come
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self.is_lost = False

    def watch(self) -> None:
        """From now on, closes the link when the other side lives, perhaps, but does not answer."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        missed = 0
        while missed < MISSES:
            received, unsent = self.connection.received_bytes, self.connection.unsent_bytes
            self.connection.send({"ping": None})
            await asyncio.sleep(WATCH_S)
            # Long messages delay the answer: but then they come, or go.
            is_alive = self.connection.received_bytes != received or self.connection.unsent_bytes < unsent
            missed = 0 if is_alive else missed + 1
        _log.error("The other end of a link does not answer for %g s, so the link is closed", MISSES * WATCH_S)
        self.close()

    async def ask(
        self, request: Head, body: Body = b"", *, answered: Callable[[], None] = lambda: None
    ) -> tuple[Head, bytes]:
        """The answer to a request.

        Args:
            request: with its name as `do`.
            body: its bytes.
            answered: called when the other side is done with the request, also if this call is cancelled.

        Raises:
            EngineLostError: the connection has ended.
            PatchserveError: the other side's.
        """
        if self.is_lost:
            answered()
            raise EngineLostError
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.connection.send(request | {"n": number} | _call(), body)
        try:
            result: tuple[Head, bytes] = await waiting
        except asyncio.CancelledError:
            if self._waiting.pop(number, None) is None:
                answered()  # it came at the moment of the cancellation
            else:
                self._left[number] = answered
                self.connection.send({"cancel": number})
            raise
        except BaseException:
            answered()
            raise
        finally:
            del waiting  # its error has a traceback that refers to this frame: a cycle
        answered()
        return result

    def tell(self, message: Head, body: Body = b"") -> None:
        """Sends a message, with its name as `tell`. Nobody answers it."""
        self.connection.send(message, body)

    def close(self) -> None:
        """Ends the connection at once."""
        self.connection.close()

    def _received(self, head: Head, body: bytes) -> None:
        if "re" in head:
            self._take_answer(head["re"], head, body)
        elif "n" in head:
            number: int = head["n"]
            task = self._answering[number] = asyncio.create_task(self._answer(number, head, body))
            task.add_done_callback(partial(self._end_answer, number))
        elif "ping" in head:
            self.connection.send({"pong": None})
        elif "cancel" in head:
            if head["cancel"] in self._answering:
                self._answering[head["cancel"]].cancel()
        elif "pong" not in head:
            self._handlers.told(head, body)

    def _take_answer(self, number: int, head: Head, body: bytes) -> None:
        if (answered := self._left.pop(number, None)) is not None:
            answered()
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.done():
            return
        if "error" in head:
            waiting.set_exception(error_from_json(head["error"]))
        else:
            waiting.set_result((head, body))

    def _end_answer(self, number: int, task: asyncio.Task[None]) -> None:
        self._answering.pop(number, None)
        if task.cancelled():  # before it had begun: the other side waits for an answer all the same
            self.connection.send({"re": number})

    async def _answer(self, number: int, request: Head, body: bytes) -> None:
        answer: tuple[Head, Body] = {}, b""
        if (call := request.pop("call", None)) is not None:
            current_call.set(RelayedCall(**call | {"face": Face(call["face"])}))  # in the task of this answer
        try:
            answer = await self._handlers.answer(request, body)
        except asyncio.CancelledError:  # the other side does not need it, or has gone
            answer = {}, b""
        except Exception as error:  # noqa: BLE001 - the other side gets it
            answer = {"error": error_to_json(error)}, b""
        head, content = answer
        self.connection.send({"re": number, **head}, content)

    def _lost(self) -> None:
        self.is_lost = True
        if self._watching is not None:
            self._watching.cancel()
        waiting, left = self._waiting, self._left
        self._waiting, self._left = {}, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(EngineLostError())
                retrieve(future)
        for answered in left.values():
            answered()
        for task in list(self._answering.values()):
            task.cancel()
        self._ended()


def _call() -> Head:
    """For which call it is, so that the other side can name it too."""
    call = current_call.get()
    if call is None:
        return {}
    fields = ("request_id", "face", "method_name", "client", "reference_id", "trace_parent")
    return {"call": {name: getattr(call, name) for name in fields}}


def retrieve(future: asyncio.Future[Any]) -> None:
    """Keeps asyncio from logging an error that nobody waits for."""
    future.add_done_callback(retrieve_error)  # type: ignore[arg-type]
