"""The whole server in a thread of this process, by default with a fake detector."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes.detector import FakeDetector

from patchserve_server.bootstrap import composition, lifecycle
from patchserve_server.config import Settings
from patchserve_server.domain.ports import Detector

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
_starting = threading.Lock()  # one server at a time: starting needs patches


@contextmanager
def in_process_server(
    *, detector: Detector | None = None, stop: threading.Event | None = None, **settings: Any
) -> Iterator[str]:
    """Serve on a free port unless the settings name one; yield the address, localhost:PORT.

    Args:
        detector: if left out, the one of the setting `backbone`, or a FakeDetector without that setting.
        stop: begins the drain when it is set, like SIGTERM.
        settings: of the server.

    Raises:
        StartupError: as `patchserve-server serve` would report it.
    """
    stop = stop or threading.Event()
    chosen = Settings(**{"port": 0, "drain_delay_s": 0.0, "drain_grace_s": 1.0, **settings})
    thread = None
    try:
        with _starting, pytest.MonkeyPatch.context() as patch:
            if detector is not None or "backbone" not in settings:
                patch.setattr(composition, "open_detector", lambda _: detector or FakeDetector())
            patch.setattr(lifecycle, "stop_on_signals", lambda: asyncio.ensure_future(asyncio.to_thread(stop.wait)))
            thread, ready = _start(chosen, stop)
            line = ready.result(START_TIMEOUT_S)
        port = line.split(" listening on ")[1].split()[0].rpartition(":")[2]
        yield f"localhost:{port}"
    finally:
        stop.set()
        if thread is not None:
            thread.join(STOP_TIMEOUT_S)
            assert not thread.is_alive(), "the server is still running"


def _start(settings: Settings, stop: threading.Event) -> tuple[threading.Thread, concurrent.futures.Future[str]]:
    """The thread of the server, and the line that it announces when it is ready."""
    ready: concurrent.futures.Future[str] = concurrent.futures.Future()

    async def serve() -> None:
        try:
            await lifecycle.serve(settings, ready.set_result)
        finally:
            stop.set()  # ends the thread that waits for it: the loop waits for its threads

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ready
