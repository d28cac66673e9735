"""The HTTP server: its port, its connections, its end."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
import requests
from e2e.counted import SMALL, CountedServer
from e2e.harness import ServerProcess, server_process
from e2e.in_process import in_process_server, running_server
from fakes.raw_http import RawConnection, form
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve_server.access import binding
from patchserve_server.bootstrap import faces
from patchserve_server.domain.errors import StartupError
from patchserve_server.web import server as web_server

FORM, BODY = form(SMALL)
TIMEOUT_S = 60
HAS_IPV6 = socket.has_dualstack_ipv6()


def health(url: str) -> requests.Response:
    return requests.get(f"{url}/health", timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param("[::1]", "[::1]", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
    ],
)
def test_the_port_is_on_the_same_host_as_that_of_grpc(host: str, address: str) -> None:
    with running_server(host=host) as server:
        assert server.http_url.rpartition(":")[0] == f"http://{address}"
        assert health(server.http_url).status_code == 200


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_every_address_includes_those_of_ipv4() -> None:
    with running_server(host="::", insecure=True) as server:
        port = server.http_url.rpartition(":")[2]
        assert health(f"http://127.0.0.1:{port}").status_code == 200
        assert health(f"http://[::1]:{port}").status_code == 200


def test_a_port_in_use_is_named_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port = taken.getsockname()[1]
        own = free.getsockname()[1]
        free.close()
        with (
            pytest.raises(StartupError, match=rf"127.0.0.1:{port}: the port is in use already.*--http-port"),
            running_server(port=own, http_port=port),
        ):
            pass
        with in_process_server(port=own):
            pass


def test_a_failed_start_frees_both_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []
    bind = binding.bind

    def noted(*arguments: Any, **options: Any) -> list[socket.socket]:
        sockets = bind(*arguments, **options)
        urls.append(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
        return sockets

    monkeypatch.setattr(web_server, "bind", noted)
    with pytest.raises(StartupError), running_server(backbone="efficientnet_lite2", device="cuda:9"):
        pass
    with pytest.raises(ConnectionError):
        RawConnection(urls[0])


def test_the_same_port_for_both_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StartupError, match="--http-port"), running_server(port=port, http_port=port):
        pass


def test_a_unix_socket_has_no_port_for_http(tmp_path: Any) -> None:
    with pytest.raises(StartupError, match=r"--host 127.0.0.1"), running_server(host=f"unix:{tmp_path}/s"):
        pass


def test_what_others_can_reach_needs_tls_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupError, match="--insecure"), running_server(host="0.0.0.0"):
        pass
    with running_server(host="0.0.0.0", insecure=True):
        assert caplog.text.count("--insecure") == 1


def test_http_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("patchserve_server.web.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "uvicorn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(StartupError, match=r"--http-port needs the extra http.*patchserve\[http\]"), running_server():
        pass
    with in_process_server():
        pass


def test_connections_without_a_request_make_room_for_others() -> None:
    with running_server(max_calls=6) as server, ExitStack() as stack:
        url = server.http_url
        silent = [stack.enter_context(RawConnection(url)) for _ in range(200)]
        assert silent[0].is_closed(), "the oldest"
        assert health(url).status_code == 200
        other = stack.enter_context(RawConnection(url, source="127.0.0.2"))
        other.request("GET", "/health")
        assert other.answer().code == 200


def test_connections_with_a_request_stay_and_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "http_connections", lambda _: 8)
    with ExitStack() as stack:
        server = CountedServer(stack, client_share=0.5, max_pending_images=16)
        server.load_default()
        server.detector.gate.clear()
        busy = [stack.enter_context(RawConnection(server.http_url)) for _ in range(4)]
        for caller in busy:
            caller.request("POST", "/infer", FORM, f"Content-Length: {len(BODY)}", body=BODY)
        wait_until(lambda: server.application.images.held.count == 4)
        answer = stack.enter_context(RawConnection(server.http_url)).answer()
        assert (answer.code, answer.reason) == (429, "QUEUE_FULL")
        with RawConnection(server.http_url, source="127.0.0.2") as other:
            other.request("GET", "/health")
            assert other.answer().code == 200
        server.detector.gate.set()
        assert [caller.answer().code for caller in busy] == [200] * 4


def test_a_connection_without_a_further_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "KEEP_ALIVE_S", 0.1)
    with running_server() as server, RawConnection(server.http_url) as caller:
        caller.request("GET", "/health")
        assert caller.answer().code == 200
        assert caller.is_closed()


def test_an_old_connection_takes_one_more_request() -> None:
    with running_server(max_connection_age_s=1e-9) as server, RawConnection(server.http_url) as caller:
        caller.request("GET", "/health")
        answer = caller.answer()
        if "connection" not in answer.headers:  # it came in the same millisecond as its connection
            time.sleep(0.01)
            caller.request("GET", "/health")
            answer = caller.answer()
        assert (answer.code, answer.headers["connection"]) == (200, "close")
        assert caller.is_closed()


def test_a_stop_closes_what_is_idle_and_waits_for_what_is_accepted() -> None:
    stop = threading.Event()
    with ExitStack() as stack:
        server = CountedServer(stack, stop, drain_grace_s=1000.0)
        server.load_default()
        server.detector.gate.clear()
        idle, silent, slow, busy = (stack.enter_context(RawConnection(server.http_url)) for _ in range(4))
        idle.request("GET", "/health")
        assert idle.answer().code == 200
        slow.request("POST", "/infer", FORM, f"Content-Length: {len(BODY)}", body=BODY[:-1])
        busy.request("POST", "/infer", FORM, f"Content-Length: {len(BODY)}", body=BODY)
        wait_until(lambda: server.application.images.held.count == 2)
        stop.set()
        assert idle.is_closed()
        assert silent.is_closed()
        answer = slow.answer()
        assert (answer.code, answer.reason) == (503, "DRAINING")
        server.detector.gate.set()
        answer = busy.answer()
        assert (answer.code, answer.headers["connection"]) == (200, "close")
        with pytest.raises(ConnectionError):
            RawConnection(server.http_url).answer()


def test_a_stop_ends_what_is_not_finished_in_time() -> None:
    stop = threading.Event()
    with ExitStack() as stack:
        server = CountedServer(stack, stop, drain_grace_s=0.1)
        server.load_default()
        server.detector.gate.clear()
        busy = stack.enter_context(RawConnection(server.http_url))
        busy.request("POST", "/infer", FORM, f"Content-Length: {len(BODY)}", body=BODY)
        wait_until(lambda: server.application.images.held.count == 1)
        stop.set()
        assert busy.is_closed()
        server.wait_until_nothing_is_held()
        server.detector.gate.set()


def test_a_signal_drains_both_ports() -> None:
    with server_process("--http-port", "0", "--drain-delay-s", "0") as server:
        assert health(server.http_url).json()["status"] == "healthy"
    with pytest.raises(requests.ConnectionError):
        health(server.http_url)


def test_before_a_stop_health_reports_it_and_a_second_signal_ends_the_process() -> None:
    server = ServerProcess("--http-port", "0", "--drain-delay-s", "1000")
    server.wait_ready()
    with RawConnection(server.http_url) as caller, grpc.insecure_channel(server.address) as channel:
        caller.request("GET", "/v1/references")
        assert "connection" not in caller.answer().headers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: health(server.http_url).status_code == 503)
        caller.request("GET", "/v1/references")
        answer = caller.answer()
        assert (answer.code, answer.headers["connection"]) == (200, "close"), "its next one goes to another server"
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        status = health_pb2_grpc.HealthStub(channel).Check(request).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.stop() == 130
