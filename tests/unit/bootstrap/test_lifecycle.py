"""Start and stop, as far as no signal and no socket are needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from patchserve_server.bootstrap import composition, lifecycle
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.observation import Observation


class FakeServer:
    """Records its drains."""

    def __init__(self) -> None:
        self.drains: list[tuple[float, float]] = []

    async def start(self) -> Addresses:
        return Addresses("localhost:1", "")

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        self.drains.append((delay_s, grace_s))


class Start:
    """A start that can be awaited, ended by `stop`, and made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = FakeServer()
        self.stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running, self.closed, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.failure: Exception | None = None
        monkeypatch.setattr(lifecycle, "create_server", lambda *_: self.server)
        monkeypatch.setattr(composition, "create_application", self._create_application)
        monkeypatch.setattr(lifecycle, "stop_on_signals", lambda: self.stop)
        monkeypatch.setattr(lifecycle, "reload_on_hangup", lambda *_: None)

    async def _create_application(
        self, _live: LiveSettings, _addresses: Addresses, _observation: Observation, resources: Any
    ) -> Any:
        resources.callback(self.closed.set)
        if self.failure is not None:
            raise self.failure
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def serve(self) -> None:
        async with asyncio.timeout(30):
            settings = Settings(drain_delay_s=1, drain_grace_s=2)
            await lifecycle.serve(LiveSettings(settings), self.announce, lambda: settings)

    def announce(self, line: str) -> None:
        raise AssertionError(line)


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    return Start(monkeypatch)


@pytest.mark.parametrize("failure", [StartupError("no weights"), RuntimeError("a bug")])
async def test_a_failed_start_closes_the_port_at_once_and_everything_that_was_opened(
    start: Start, failure: Exception
) -> None:
    start.failure = failure
    with pytest.raises(type(failure)):
        await start.serve()
    assert start.server.drains == [(0, 0)]
    assert start.closed.is_set()


async def test_a_stop_during_the_start_cancels_it_and_drains(start: Start) -> None:
    serving = asyncio.create_task(start.serve())
    await start.running.wait()
    start.stop.set_result(None)
    await serving
    await start.cancelled.wait()
    assert start.server.drains == [(1, 2)]
    assert start.closed.is_set()


async def test_a_cancelled_server_cancels_its_start_and_closes_the_port(start: Start) -> None:
    serving = asyncio.create_task(start.serve())
    await start.running.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    await start.cancelled.wait()
    assert start.server.drains == [(0, 0)]
    assert start.closed.is_set()


@pytest.mark.parametrize(
    ("grpc", "http_url", "local"),
    [
        ("0.0.0.0:50051", "https://0.0.0.0:8080", Addresses("localhost:50051", "https://localhost:8080")),
        ("[::]:50051", "http://[::]:8080", Addresses("localhost:50051", "http://localhost:8080")),
        ("10.0.0.0:50051", "http://10.0.0.0:8080", Addresses("10.0.0.0:50051", "http://10.0.0.0:8080")),
        ("unix:/run/0.0.0.0:1", "", Addresses("unix:/run/0.0.0.0:1", "")),
    ],
)
def test_a_person_at_this_machine_is_told_an_address_that_can_be_opened(
    grpc: str, http_url: str, local: Addresses
) -> None:
    assert Addresses(grpc, http_url).on_this_machine == local
