"""The whole server in this process, by default with a fake detector."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
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
    ready: concurrent.futures.Future[str] = concurrent.futures.Future()
    with _starting, pytest.MonkeyPatch.context() as patch:
        if detector is not None or "backbone" not in settings:
            patch.setattr(composition, "open_detector", lambda _: detector or FakeDetector())
        patch.setattr(lifecycle, "stop_on_signals", lambda: asyncio.ensure_future(asyncio.to_thread(stop.wait)))
        patch.setattr(lifecycle, "reload_on_hangup", lambda _: None)
        server = asyncio.run_coroutine_threadsafe(_serve(chosen, ready, stop), _loop())
        line = ready.result(START_TIMEOUT_S)
    try:
        port = line.split(" listening on ")[1].split()[0].rpartition(":")[2]
        yield f"localhost:{port}"
    finally:
        stop.set()
        server.result(STOP_TIMEOUT_S)


async def _serve(settings: Settings, ready: concurrent.futures.Future[str], stop: threading.Event) -> None:
    try:
        await lifecycle.serve(settings, ready.set_result)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
    finally:
        stop.set()  # ends the thread that waits for it


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all servers of this process, which never ends.

    grpc.aio has one queue of events for all loops of a process. An event for a call whose loop has ended can reach
    another loop; the call is gone then, and the process crashes.
    """
    loop = asyncio.new_event_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(64))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop
