"""The whole server in this process, by default with a fake detector."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from e2e.harness import addresses_in, metrics_url_in
from fakes.detector import FakeDetector

from patchserve_server.bootstrap import composition, lifecycle
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.process import new_event_loop
from patchserve_server.config import Settings
from patchserve_server.domain.ports import Detector

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
_starting = threading.Lock()  # one server at a time: starting needs patches
_loops: dict[type[asyncio.AbstractEventLoop], asyncio.AbstractEventLoop] = {}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where a server of this process listens."""

    address: str  # of gRPC, localhost:PORT
    http_url: str  # without a slash at its end; empty without `http_port`
    metrics_url: str = ""  # empty without `metrics_port`


@contextmanager
def in_process_server(**settings: Any) -> Iterator[str]:
    """`running_server`, without HTTP unless the settings say so; yields the address of gRPC."""
    with running_server(**{"http_port": None, **settings}) as server:
        yield server.address


@contextmanager
def running_server(
    *, detector: Detector | None = None, stop: threading.Event | None = None, **settings: Any
) -> Iterator[RunningServer]:
    """Serve gRPC and HTTP on free ports unless the settings name others.

    Args:
        detector: if left out, the one of the setting `backbone`, or a FakeDetector without that setting.
        stop: begins the drain when it is set, like SIGTERM.
        settings: of the server.

    Raises:
        StartupError: as `patchserve-server serve` would report it.
    """
    stop = stop or threading.Event()
    chosen = Settings(**{"port": 0, "http_port": 0, "drain_delay_s": 0.0, "drain_grace_s": 1.0, **settings})
    ready: concurrent.futures.Future[str] = concurrent.futures.Future()
    with _starting, pytest.MonkeyPatch.context() as patch:
        if detector is not None or "backbone" not in settings:
            patch.setattr(composition, "open_detector", lambda _: detector or FakeDetector())
        patch.setattr(lifecycle, "stop_on_signals", lambda: asyncio.ensure_future(asyncio.to_thread(stop.wait)))
        patch.setattr(lifecycle, "reload_on_hangup", lambda *_: None)
        server = asyncio.run_coroutine_threadsafe(_serve(chosen, ready, stop), _loop(chosen))
        line = ready.result(START_TIMEOUT_S)
    try:
        address, http_url = addresses_in(line)
        yield RunningServer(f"localhost:{address.rpartition(':')[2]}", http_url, metrics_url_in(line))
    finally:
        stop.set()
        server.result(STOP_TIMEOUT_S)


async def _serve(settings: Settings, ready: concurrent.futures.Future[str], stop: threading.Event) -> None:
    try:
        await lifecycle.serve(LiveSettings(settings), ready.set_result, lambda: settings)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
    finally:
        stop.set()  # ends the thread that waits for it


def _loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """One loop of each kind for all servers of this process, which never ends. Called with `_starting` held.

    grpc.aio has one queue of events for all loops of a process. An event for a call whose loop has ended can reach
    another loop; the call is gone then, and the process crashes.
    """
    made = new_event_loop(settings)
    kept = _loops.setdefault(type(made), made)
    if kept is made:
        made.set_default_executor(concurrent.futures.ThreadPoolExecutor(64))
        threading.Thread(target=made.run_forever, daemon=True).start()
    else:
        made.close()
    return kept
