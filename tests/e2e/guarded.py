"""The whole server in a thread, around a detector that needs no network: for tests of who gets in."""

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


@contextmanager
def serving(**settings: Any) -> Iterator[str]:
    """Serves on a free port of this machine; gives its address as localhost:PORT.

    Args:
        settings: the server's; and `detector`, a FakeDetector, and `stop`, an Event that begins the drain.

    Raises:
        StartupError: as `patchserve-server serve` would say it.
    """
    detector, stop = settings.pop("detector", None), settings.pop("stop", None) or threading.Event()
    ready: concurrent.futures.Future[str] = concurrent.futures.Future()
    chosen = Settings(**{"port": 0, "drain_delay_s": 0.0, "drain_grace_s": 1.0, **settings})

    async def serve() -> None:
        try:
            await lifecycle.serve(chosen, ready.set_result)
        finally:
            stop.set()  # the loop waits for the thread that waits for this

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "open_detector", lambda _settings: detector or FakeDetector())
        patch.setattr(lifecycle, "stop_on_signals", lambda: asyncio.ensure_future(asyncio.to_thread(stop.wait)))
        thread = threading.Thread(target=run)
        thread.start()
        try:
            line = ready.result(30)
            port = line.split(" listening on ")[1].split()[0].rpartition(":")[2]
            yield f"localhost:{port}"
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive(), "the server has not left"
