"""A stream of server-sent events: it holds its place, and ends with its caller, its token or the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from e2e.counted import CountedServer
from fakes.raw_http import RawConnection
from fakes.waiting import wait_until

from patchserve_server.access import reloading
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.web import events

TIMEOUT_S = 60


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


def watch(server: CountedServer, token: str = "") -> requests.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return requests.get(f"{server.http_url}/watch/events", headers=headers, stream=True, timeout=TIMEOUT_S)


def blocks(response: requests.Response) -> Iterator[str]:
    """Each event or comment."""
    lines: list[str] = []
    for line in response.iter_lines(decode_unicode=True):
        if line:
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []


def last_reason(received: Iterator[str]) -> str:
    """The reason in the event that ends the stream."""
    *_, last = received
    data = "".join(line.partition(":")[2] for line in last.splitlines() if line.startswith("data"))
    found: dict[str, Any] = json.loads(data)
    return next(str(detail["reason"]) for detail in found["details"] if "reason" in detail)


def test_it_has_its_place_until_its_caller_leaves(stack: ExitStack) -> None:
    server = CountedServer(stack, max_calls=2)
    streams = [stack.enter_context(watch(server)) for _ in range(2)]
    for stream in streams:
        assert stream.status_code == 200
        assert stream.headers["content-type"] == "text/event-stream"
    assert server.application.calls.held.count == 2
    assert requests.get(f"{server.http_url}/v1/references", timeout=TIMEOUT_S).status_code == 429
    assert watch(server).status_code == 429, "an error before the first event has its code"
    assert requests.get(f"{server.http_url}/health", timeout=TIMEOUT_S).status_code == 200
    for stream in streams:
        stream.close()
    server.wait_until_nothing_is_held()


def test_it_ends_with_a_drain_and_says_so(stack: ExitStack) -> None:
    stop = threading.Event()
    server = CountedServer(stack, stop, drain_grace_s=1000.0)
    stream = stack.enter_context(watch(server))
    received = blocks(stream)
    next(received)
    stop.set()
    assert last_reason(received) == "DRAINING"


def test_it_ends_when_its_token_is_revoked(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "INTERVAL_S", 0.02)
    monkeypatch.setattr(events, "RECHECK_INTERVAL_S", 0.02)
    token, line = new_token("a", [Scope.MANAGE])
    _, other = new_token("b", [Scope.MANAGE])
    file = tmp_path / "tokens"
    file.write_text(line)
    server = CountedServer(stack, auth_tokens=file)
    stream = stack.enter_context(watch(server, token))
    received = blocks(stream)
    next(received)
    file.write_text(other)
    assert last_reason(received) == "INVALID_CREDENTIALS"
    assert watch(server).status_code == 401


def test_a_comment_comes_when_nothing_happens(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECHECK_INTERVAL_S", 0.02)
    monkeypatch.setattr(events, "SILENCE_S", 0.0)
    server = CountedServer(stack)
    stream = stack.enter_context(watch(server))
    assert any(block.startswith(":") for block in blocks(stream))


def test_who_does_not_read_is_ended(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(events, "SILENCE_S", 0.0)
    monkeypatch.setattr(events, "_COMMENT", b":" + bytes(100_000).replace(b"\0", b"-") + b"\n\n")
    server = CountedServer(stack)
    caller = stack.enter_context(RawConnection(server.http_url, receive_buffer=2048))
    caller.request("GET", "/watch/events")
    wait_until(lambda: server.application.calls.held.count == 1)
    server.wait_until_nothing_is_held()
    wait_until(lambda: server.http_connections() == 0)
