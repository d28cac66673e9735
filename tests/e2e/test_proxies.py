"""nginx as docs/deployment configures it, and Envoy as deploy/envoy does: nothing is lost, held back or cut off."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e import proxies
from e2e.harness import Stub, connect, load, refusal
from e2e.in_process import in_process_server
from e2e.rolling import PROXIES, in_a_thread, rolled
from fakes.images import card, encoded, noise
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2
from patchserve_client import Client, Frame, FrameResult, ResourceExhausted, TlsConfig, Unauthenticated
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.serving.time_limits import deadline

MIB = 2**20
BOTH = pytest.mark.parametrize("proxy", PROXIES, indirect=True)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[proxies.Proxy]:
    """A proxy in front of one server that has the reference `default`."""
    with in_process_server(max_message_mib=16) as address:
        with connect(address) as stub:
            load(stub, "default", 1)
        with PROXIES[request.param](tmp_path, address) as running:
            yield running


def connected(proxy: proxies.Proxy, **options: Any) -> Client:
    return Client(proxy.address, tls=TlsConfig(proxy.ca_file), **options)


@BOTH
def test_calls_error_details_and_health_pass_through(proxy: proxies.Proxy) -> None:
    with proxy.channel() as channel:
        stub = Stub(channel)
        assert stub.Infer(inference_pb2.InferRequest(image=encoded(card(1)))).reference_id == "default"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(inference_pb2.InferRequest(reference_id="none", image=encoded(card(1))))
        code, reason, details = refusal(caught.value)
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
        assert details["ResourceInfo"].resource_name == "none"  # type: ignore[attr-defined]
        health = health_pb2_grpc.HealthStub(channel)
        ready = health.Check(health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService"))
        assert ready.status == health_pb2.HealthCheckResponse.SERVING


@BOTH
def test_large_images_pass_in_both_directions(proxy: proxies.Proxy) -> None:
    image = noise(1800)
    with connected(proxy) as client:
        result = client.infer(image, overlay=True)
        assert result.encoded_overlay is not None
        assert len(result.encoded_overlay.data) > MIB
        frames = [encoded(image, "PNG")] * 3
        assert min(map(len, frames)) > 9 * MIB
        assert [frame.error for frame in client.infer_stream(frames)] == [None] * 3, "a stream's size has no end"


@BOTH
def test_the_message_limit_of_the_server_applies(proxy: proxies.Proxy) -> None:
    with connected(proxy) as client:
        with pytest.raises(ResourceExhausted, match="larger than max"):
            client.infer(bytes(17 * MIB))
        assert client.infer(card(1)).reference_id == "default"


@BOTH
def test_a_stream_flows_in_both_directions_at_once(proxy: proxies.Proxy) -> None:
    """Each frame is sent after the result of the frame before, so nothing may be held back on the way."""
    results: queue.Queue[FrameResult] = queue.Queue()

    def frames() -> Iterator[Frame]:
        for number in range(10):
            yield Frame(encoded(card(1)), str(number))
            results.get(timeout=20)

    with connected(proxy) as client:
        for result in client.infer_stream(frames()):
            results.put(result)
            seen = result.frame_id
    assert seen == "9"


@BOTH
def test_the_callers_deadline_reaches_the_server(proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    left_s: list[float] = []  # of the call, and of checks of the proxy

    def noted(remaining_s: float | None, default_s: float, longest_s: float) -> Any:
        left_s.append(remaining_s or 0.0)
        return deadline(remaining_s, default_s, longest_s)

    monkeypatch.setattr("patchserve_server.rpc.adapter.deadline", noted)
    with connected(proxy) as client:
        client.infer(card(1), timeout_s=1000)
    assert 900 < max(left_s) <= 1000


@pytest.mark.parametrize("name", PROXIES)
def test_tokens_pass_through(name: str, tmp_path: Path) -> None:
    token, line = new_token("camera", [Scope.INFER, Scope.MANAGE])
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    with in_process_server(auth_tokens=tokens) as address, PROXIES[name](tmp_path, address) as proxy:
        with connected(proxy, token=token) as client:
            assert client.load_reference(card(1)).image_count == 1
        with connected(proxy) as client, pytest.raises(Unauthenticated):
            client.infer(card(1))


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_that_is_down_is_skipped(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, in_process_server() as address:
        gone = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        with PROXIES[name](tmp_path, gone, address) as proxy, connected(proxy) as client:
            client.load_reference(card(1))
            assert [client.infer(card(1)).reference_id for _ in range(10)] == ["default"] * 10


def test_a_stream_survives_a_reload_of_nginx(tmp_path: Path) -> None:
    results: queue.Queue[FrameResult] = queue.Queue()
    with ExitStack() as stack:
        address = stack.enter_context(in_process_server())
        proxy = stack.enter_context(proxies.nginx(tmp_path, address))
        client = stack.enter_context(connected(proxy))
        client.load_reference(card(1))

        def frames() -> Iterator[Frame]:
            yield Frame(encoded(card(1)), "before")
            results.get(timeout=20)
            old = set(proxy.workers())
            proxy.reload()
            wait_until(lambda: bool(set(proxy.workers()) - old))
            with connected(proxy) as other:
                yield Frame(encoded(card(1)), f"after {other.infer(card(1)).reference_id}")

        seen = []
        for result in client.infer_stream(frames()):  # not one that connects again
            seen.append(result.frame_id)
            results.put(result)
    assert seen == ["before", "after default"]


@pytest.mark.parametrize("name", PROXIES)
def test_streams_survive_a_rolling_restart_of_their_servers(name: str, tmp_path: Path) -> None:
    for camera in rolled(name, 0, tmp_path, in_a_thread):
        camera.check()
        assert camera.drained, "both servers were drained, so its own was"
