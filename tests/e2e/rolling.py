"""Streams through a proxy while its two servers are drained and started again, one after the other.

    python -m e2e.rolling --proxy nginx --seconds 60

with tests/ on the path does it for a minute with server processes, and prints what it saw. A test does it with servers
in its own process, until each was drained once.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e import envoys, proxies
from e2e.harness import server_process
from e2e.in_process import in_process_server
from fakes.images import card, encoded
from fakes.waiting import wait_until

from patchserve_client import AsyncClient, Client, Frame, FrameResult, NoticeKind, StreamNotice, TlsConfig

PROXIES = {"nginx": proxies.nginx, "envoy": envoys.envoy}
FRAME_EVERY_S = 0.1
RESUME_FOR_S = 60.0


@dataclass
class Camera:
    """Sends frames at a steady rate until it is switched off, and keeps the results."""

    client_kind: str
    off: threading.Event
    sent: int = 0
    results: list[FrameResult] = field(default_factory=list)
    drained: int = 0
    longest_gap_s: float = 0.0
    _last_s: float | None = None

    def frames(self) -> Iterator[Frame]:
        images = [encoded(card(seed)) for seed in range(4)]
        while not self.off.wait(FRAME_EVERY_S):
            yield Frame(images[self.sent % 4], str(self.sent))
            self.sent += 1

    async def frames_awaited(self) -> AsyncIterator[Frame]:
        frames = self.frames()
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            yield frame

    def note(self, notice: StreamNotice) -> None:
        self.drained += notice.kind is NoticeKind.DRAINING

    def take(self, result: FrameResult) -> None:
        now_s = time.monotonic()
        if self._last_s is not None:
            self.longest_gap_s = max(self.longest_gap_s, now_s - self._last_s)
        self._last_s = now_s
        self.results.append(result)

    def run(self, proxy: proxies.Proxy) -> None:
        tls = TlsConfig(proxy.ca_file)
        if self.client_kind == "asyncio":
            asyncio.run(self._run_asyncio(proxy.address, tls))
            return
        with Client(proxy.address, tls=tls) as client:
            for result in client.infer_stream(self.frames(), resume_for_s=RESUME_FOR_S, on_notice=self.note):
                self.take(result)

    async def _run_asyncio(self, address: str, tls: TlsConfig) -> None:
        async with AsyncClient(address, tls=tls) as client:
            results = client.infer_stream(self.frames_awaited(), resume_for_s=RESUME_FOR_S, on_notice=self.note)
            async for result in results:
                self.take(result)

    def check(self) -> None:
        """Assert that every frame has one result, in order, without an error."""
        ids = [result.frame_id for result in self.results]
        assert ids == [str(number) for number in range(self.sent)], (self.client_kind, self.sent, Counter(ids))
        assert [result.sequence for result in self.results] == list(range(self.sent))
        assert not [result.error for result in self.results if result.error is not None]


Serving = Callable[[int], AbstractContextManager[str]]  # on this port, or a free one if it is 0; gives the address


@contextmanager
def in_a_process(port: int) -> Iterator[str]:
    with server_process("--port", str(port), "--drain-delay-s", "1", "--drain-grace-s", "20") as server:
        yield server.address


@contextmanager
def in_a_thread(port: int) -> Iterator[str]:
    with in_process_server(port=port, drain_grace_s=20.0) as address:
        yield address


class Server:
    """A server with the reference `default`, which has the same revision on every server."""

    def __init__(self, serving: Serving, port: int = 0) -> None:
        self._serving = serving
        self._running = ExitStack()
        self.address = self._running.enter_context(serving(port))
        with Client(self.address) as client:
            client.load_reference([card(seed) for seed in range(4)])

    def drain(self) -> None:
        self._running.close()

    def started_again(self) -> Server:
        return Server(self._serving, int(self.address.rpartition(":")[2]))


def rolled(proxy_name: str, seconds: float, folder: Path, serving: Serving) -> list[Camera]:
    """Run a camera with each client while every server is drained once, and again until the time has passed."""
    off = threading.Event()
    cameras = [Camera(kind, off) for kind in ("sync", "asyncio")]
    with ThreadPoolExecutor() as pool:
        servers = list(pool.map(Server, (serving, serving)))
        try:
            with PROXIES[proxy_name](folder, *(server.address for server in servers)) as proxy:
                running = [pool.submit(camera.run, proxy) for camera in cameras]
                try:
                    _roll(servers, cameras, running, time.monotonic() + seconds)
                finally:
                    off.set()
                for each in running:
                    each.result(60)
        finally:
            for server in servers:
                server.drain()
    return cameras


def _roll(servers: list[Server], cameras: list[Camera], running: list[Future[None]], until_s: float) -> None:
    turn = 0
    while turn < len(servers) or time.monotonic() < until_s:
        _wait_for_results(cameras, running)
        index = turn % len(servers)
        servers[index].drain()
        servers[index] = servers[index].started_again()
        turn += 1


def _wait_for_results(cameras: list[Camera], running: list[Future[None]]) -> None:
    """Return when each camera has another 20 results."""
    before = [len(camera.results) for camera in cameras]

    def all_have_them() -> bool:
        for each in running:
            if each.done():
                each.result()
                raise AssertionError("a camera ended by itself")
        return all(len(camera.results) >= count + 20 for camera, count in zip(cameras, before, strict=True))

    wait_until(all_have_them)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", choices=PROXIES, default="nginx")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for camera in rolled(arguments.proxy, arguments.seconds, Path(folder), in_a_process):
            camera.check()
            what = f"{arguments.proxy}, {camera.client_kind}"
            print(f"{what}: {camera.sent} frames sent, {len(camera.results)} results, each once and in order")
            print(f"{what}: {camera.drained} drains of its server, longest gap {camera.longest_gap_s:.1f} s")


if __name__ == "__main__":
    main()
