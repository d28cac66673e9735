"""Ends a stream whose server has something to answer and sends nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc

from patchserve_client._errors import DeadlineExceeded
from patchserve_client._stream_state import StreamState

_LONGEST_POLL_S = 1.0


class SilenceLimit:
    """How long a stream may be silent: nothing arrives although frames have no result, or the stream is not ready."""

    def __init__(self, state: StreamState, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0 seconds, not {timeout_s}.")
        self._state = state
        self._timeout_s = timeout_s
        self._poll_s = min(_LONGEST_POLL_S, timeout_s / 10)

    @property
    def reference_id(self) -> str:
        """The reference of the stream."""
        return self._state.reference_id

    @contextmanager
    def watch(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Call `cancel` from another thread if the stream is silent for too long in this block.

        Raises:
            DeadlineExceeded: it was.
        """
        end, is_silent = threading.Event(), threading.Event()

        def watch() -> None:
            while not end.wait(self._poll_s):
                if self._is_exceeded():
                    is_silent.set()
                    cancel()
                    return

        threading.Thread(target=watch, name="stream silence", daemon=True).start()
        try:
            yield
        except grpc.RpcError:
            if is_silent.is_set():
                raise self._error() from None
            raise
        finally:
            end.set()

    @asynccontextmanager
    async def watch_async(self, cancel: Callable[[], object]) -> AsyncIterator[None]:
        """Like `watch`, in a task."""
        is_silent = False

        async def watch() -> None:
            nonlocal is_silent
            while True:
                await asyncio.sleep(self._poll_s)
                if self._is_exceeded():
                    is_silent = True
                    cancel()
                    return

        watching = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if is_silent and task is not None and not task.cancelling():  # from the call, and not from the caller
                raise self._error() from None
            raise
        finally:
            watching.cancel()

    def _is_exceeded(self) -> bool:
        return self._state.silent_for_s() > self._timeout_s

    def _error(self) -> DeadlineExceeded:
        message = (
            f"The stream was silent for {self._timeout_s:g} s, although the server had frames to answer. "
            "Allow more time with `timeout_s`."
        )
        return DeadlineExceeded(message)
