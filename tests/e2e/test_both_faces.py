"""gRPC and HTTP at once: one admission, so a caller has one share of it, and neither port can starve the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from e2e.counted import SMALL, CountedServer
from e2e.harness import refusal
from fakes.raw_http import RawConnection, form
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

FORM, BODY = form(SMALL)
TIMEOUT_S = 60
LIMITS: dict[str, Any] = {"max_pending_images": 8, "max_calls": 32, "client_share": 0.5}
SHARE = 4  # of a client that is alone


class Client:
    """One client on both ports: it has a token, or else an address of this machine."""

    def __init__(self, server: CountedServer, token: str = "", source: str = "127.0.0.1") -> None:
        self._server = server
        self._token = token
        self._source = source

    def start_http(self) -> RawConnection:
        """Sends an image, without waiting for the result."""
        connection = RawConnection(self._server.http_url, self._source)
        headers = [FORM, f"Content-Length: {len(BODY)}"]
        if self._token:
            headers.append(f"Authorization: Bearer {self._token}")
        connection.request("POST", "/infer", *headers, body=BODY)
        return connection

    def infer_http(self) -> str:
        """The reason of its refusal, or empty."""
        with self.start_http() as connection:
            answer = connection.answer()
            return "" if answer.code == 200 else answer.reason

    @property
    def _options(self) -> dict[str, Any]:
        metadata = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        return {"metadata": metadata, "timeout": TIMEOUT_S}

    def infer_grpc(self) -> str:
        """The reason of its refusal, or empty."""
        try:
            self._server.infer(**self._options)
        except grpc.RpcError as error:
            return refusal(error)[1]
        return ""

    def load(self) -> None:
        self._server.load_default(**self._options)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


def with_tokens(stack: ExitStack, folder: Path, *names: str, **settings: Any) -> tuple[CountedServer, list[Client]]:
    tokens, lines = zip(*(new_token(name, list(Scope)) for name in names), strict=True)
    (folder / "tokens").write_text("\n".join(lines) + "\n")
    server = CountedServer(stack, auth_tokens=folder / "tokens", **LIMITS | settings)
    clients = [Client(server, token) for token in tokens]
    clients[0].load()
    return server, clients


def images_held(server: CountedServer, count: int) -> Callable[[], bool]:
    return lambda: server.application.images.held.count == count


@pytest.mark.parametrize("kind", ["token", "address"])
def test_a_client_has_one_share_of_both_ports(
    kind: str, stack: ExitStack, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    if kind == "token":
        server, (client, other) = with_tokens(stack, tmp_path, "a", "b")
    else:
        server = CountedServer(stack, **LIMITS)
        client, other = Client(server), Client(server, source="127.0.0.2")
        client.load()
    for first_grpc in (SHARE, 0, SHARE // 2):
        server.detector.gate.clear()
        calls = [pool.submit(client.infer_grpc) for _ in range(first_grpc)]
        wait_until(images_held(server, first_grpc))
        calls += [pool.submit(client.infer_http) for _ in range(SHARE - first_grpc)]
        wait_until(images_held(server, SHARE))
        assert client.infer_http() == client.infer_grpc() == "QUEUE_FULL"
        calls.append(pool.submit(other.infer_http))
        wait_until(images_held(server, SHARE + 1))
        server.detector.gate.set()
        assert [call.result(TIMEOUT_S) for call in calls] == [""] * (SHARE + 1)
        server.wait_until_nothing_is_held()


@pytest.mark.parametrize("flooded", ["http", "grpc"])
def test_a_flood_on_one_port_starves_nobody_on_the_other(
    flooded: str, stack: ExitStack, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    server, (greedy, modest) = with_tokens(stack, tmp_path, "greedy", "modest")
    is_over = threading.Event()
    stack.callback(is_over.set)
    flood, calm = (
        (greedy.infer_http, modest.infer_grpc) if flooded == "http" else (greedy.infer_grpc, modest.infer_http)
    )

    def attack() -> set[str]:
        reasons = set()
        while not is_over.is_set():
            reasons.add(flood())
        return reasons

    attacks = [pool.submit(attack) for _ in range(24)]
    wait_until(lambda: bool(server.application.images.held.count))
    health = health_pb2_grpc.HealthStub(server.channel)
    for _ in range(20):
        assert calm() == ""
        assert requests.get(f"{server.http_url}/health", timeout=TIMEOUT_S).status_code == 200
        assert requests.get(f"{server.http_url}/v2/health/ready", timeout=TIMEOUT_S).status_code == 200
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    is_over.set()
    assert set.union(*(attack.result(TIMEOUT_S) for attack in attacks)) <= {"", "QUEUE_FULL"}
