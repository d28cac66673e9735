"""Uvicorn in a thread, with our protocol for WebSockets and an application of the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from patchserve_server.web.socket_protocol import socket_options


@contextmanager
def serving(app: Any, max_message_bytes: int = 2**20, ping_s: float = 20) -> Iterator[int]:
    """Yields the port."""
    bound = socket.create_server(("127.0.0.1", 0))
    options = {**socket_options(max_message_bytes), "ws_ping_interval": ping_s, "ws_ping_timeout": ping_s}
    config = uvicorn.Config(app, log_config=None, lifespan="off", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=[server.serve([bound])])
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        server.config.timeout_graceful_shutdown = 1
        thread.join(20)
        assert not thread.is_alive()
