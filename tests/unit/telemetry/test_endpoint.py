"""The port where Prometheus scrapes."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.scrape import Scrape, get
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from patchserve_server.access import Authenticator
from patchserve_server.domain.callers import Caller, Scope, TlsIdentity
from patchserve_server.domain.errors import InvalidCredentialsError
from patchserve_server.telemetry.metrics.endpoint import MetricsEndpoint, MetricsListening


@contextmanager
def endpoint(collector: Collector | None = None, **listening: Any) -> Iterator[str]:
    registry = CollectorRegistry()
    Gauge("patchserve_ready", "here", registry=registry).set(1)
    if collector is not None:
        registry.register(collector)
    served = MetricsEndpoint(MetricsListening(**{"host": "127.0.0.1", "port": 0, **listening}), registry)
    url = served.open()
    try:
        yield url
    finally:
        served.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def status_of(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}, method=method)) as response:
            return response.status, str(response.read().decode())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_scrape_gets_what_it_asks_for() -> None:
    with endpoint() as url:
        assert Scrape(get(url)).total("ready") == 1
        code, text = status_of(url, {"accept": "text/plain;version=0.0.4"})
        assert code == 200
        assert "patchserve_ready 1.0" in text
        assert "# EOF" not in text


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/metrics/x", "/x/metrics", "/../metrics"])
def test_nothing_else_is_there(path: str) -> None:
    with endpoint() as url:
        code, text = status_of(url.replace("/metrics", path))
        assert (code, text) == (404, "Metrics are at /metrics.\n")


class Broken(Collector):
    def __init__(self) -> None:
        self.is_broken = False  # prometheus_client reads it once when it is registered

    def collect(self) -> Iterator[Metric]:
        if self.is_broken:
            raise KeyError("a bug")
        yield from ()


def test_a_bug_is_told_to_who_scrapes_and_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    collector = Broken()
    with endpoint(collector) as url:
        collector.is_broken = True
        assert status_of(url) == (500, "The metrics cannot be read; the server's log has details.\n")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        collector.is_broken = False
        assert Scrape(get(url)).total("ready") == 1


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_it_can_only_be_read(method: str) -> None:
    with endpoint() as url:
        assert status_of(url, method=method)[0] == 501


def verify(token: str) -> Caller:
    if token != "right":
        raise InvalidCredentialsError
    return Caller("prometheus", frozenset({Scope.INFER}))


def test_it_needs_a_token_if_callers_do() -> None:
    with endpoint(authenticator=Authenticator(verify, None)) as url:
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}):
            code, text = status_of(url, wrong)
            assert code == 401
            assert "patchserve_ready" not in text
        assert status_of(url, {"authorization": "Bearer right"})[0] == 200


def test_connections_that_send_nothing_delay_no_scrape() -> None:
    with endpoint() as url, ExitStack() as idle:
        for _ in range(30):
            idle.enter_context(socket.create_connection(("127.0.0.1", port_of(url))))
        assert Scrape(get(url)).total("ready") == 1


def test_garbage_ends_its_own_connection_only() -> None:
    with endpoint() as url:
        for garbage in (b"\0" * 1000, b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
            with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
        assert Scrape(get(url)).total("ready") == 1


def test_a_target_that_is_no_url_gets_an_answer() -> None:
    with endpoint() as url, socket.create_connection(("127.0.0.1", port_of(url))) as connection:
        connection.sendall(b"GET http://[/metrics HTTP/1.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.0 404 ")


def identity_of(authority: Authority, folder: Path, *, needs_client: bool = False) -> TlsIdentity:
    cert, key = authority.write(folder, "server")
    return TlsIdentity(cert.read_bytes(), key.read_bytes(), authority.certificate if needs_client else None)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate.decode())


def test_a_new_certificate_is_used_by_the_next_connection(tmp_path: Path) -> None:
    first, second = Authority("first"), Authority("second")
    identities = [identity_of(first, tmp_path)]
    with endpoint(identity=lambda: identities[-1]) as url:
        assert url.startswith("https://")
        assert Scrape(get(url, tls=trusting(first))).total("ready") == 1
        identities.append(identity_of(second, tmp_path))
        assert Scrape(get(url, tls=trusting(second))).total("ready") == 1
        with pytest.raises(urllib.error.URLError):
            get(url, tls=trusting(first))


def test_it_needs_a_certificate_if_clients_do_and_a_client_that_says_nothing_delays_nobody(tmp_path: Path) -> None:
    authority = Authority()
    identity = identity_of(authority, tmp_path, needs_client=True)
    with (
        endpoint(identity=lambda: identity) as url,
        socket.create_connection(("127.0.0.1", port_of(url))),  # no handshake
    ):
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            get(url, tls=trusting(authority))
        context = trusting(authority)
        context.load_cert_chain(*authority.write(tmp_path, "prometheus"))
        assert Scrape(get(url, tls=context)).total("ready") == 1
