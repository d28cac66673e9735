"""A bucket in memory, and servers on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.bucket_servers import Clock, Server, memory_bucket, open_server

from patchserve_server.store.objects import MemoryObjectStorage


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket(clock: Clock) -> MemoryObjectStorage:
    return memory_bucket(clock)


@pytest.fixture
def started(bucket: MemoryObjectStorage, clock: Clock, tmp_path: Path) -> Callable[[], Server]:
    """Starts a server with a cache of its own, which has polled once."""
    servers: list[Server] = []

    def start() -> Server:
        server = open_server(bucket, tmp_path / f"cache-{len(servers)}", clock, len(servers))
        servers.append(server)
        server.poll()
        server.bucket.calls.clear()
        server.bucket.keys_of.clear()
        return server

    return start
