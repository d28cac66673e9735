"""TLS on the HTTP port: the same certificates, authorities and tokens as on that of gRPC."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from e2e.counted import CountedServer
from e2e.in_process import running_server
from fakes.certificates import Authority
from fakes.raw_http import RawConnection
from fakes.waiting import wait_until

from patchserve_server.access import reloading
from patchserve_server.web import arrivals, events

TIMEOUT_S = 60


@pytest.fixture(autouse=True)
def files_are_read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "INTERVAL_S", 0.02)


class Files:
    """Certificates of the server and a client, and their authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.cert, self.key = self.authority.write(folder, "server")
        self.own_cert, self.own_key = self.authority.write(folder, "camera-3")
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.certificate)

    @property
    def tls(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": self.key}

    def get(self, url: str, path: str = "/health", **options: Any) -> requests.Response:
        own = (str(self.own_cert), str(self.own_key))
        return requests.get(url + path, timeout=TIMEOUT_S, **{"verify": str(self.ca), "cert": own, **options})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def serial_number(url: str) -> int:
    host, port = url.removeprefix("https://").split(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=TIMEOUT_S)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def negotiated(url: str, change: Callable[[ssl.SSLContext], object]) -> str | None:
    host, port = url.removeprefix("https://").split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    change(context)
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


def test_the_url_is_that_of_https_and_the_certificate_is_checked(files: Files) -> None:
    with running_server(**files.tls) as server:
        assert server.http_url.startswith("https://")
        assert files.get(server.http_url, cert=None).json()["status"] == "healthy"
        with pytest.raises(requests.exceptions.SSLError):
            files.get(server.http_url, cert=None, verify=True)
        with pytest.raises((ConnectionError, requests.ConnectionError)):
            requests.get(server.http_url.replace("https", "http"), timeout=TIMEOUT_S)


def test_versions_of_tls_before_1_2_are_refused(files: Files) -> None:
    def only_1_2(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def only_1_1(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with running_server(**files.tls) as server:
        assert negotiated(server.http_url, lambda _: None) == "TLSv1.3"
        assert negotiated(server.http_url, only_1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="TLSv1_1"):
            negotiated(server.http_url, only_1_1)


def test_a_client_certificate_is_required_and_names_the_client(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with running_server(**files.tls, tls_client_ca=files.ca) as server:
        with pytest.raises(requests.ConnectionError):
            files.get(server.http_url, cert=None)
        foreign_folder = files.folder / "foreign"
        foreign_folder.mkdir()
        foreign = Authority("Another").write(foreign_folder, "camera-3")
        with pytest.raises(requests.ConnectionError):
            files.get(server.http_url, cert=tuple(map(str, foreign)))
        assert files.get(server.http_url).status_code == 200
        caplog.set_level("INFO", "patchserve_server")
        assert files.get(server.http_url, "/v1/references/none").status_code == 404
    [failed] = [record for record in caplog.records if "no reference" in record.message]
    assert failed.__dict__["client"] == "certificate camera-3"


def test_a_renewed_certificate_is_used_for_new_connections(files: Files) -> None:
    with running_server(**files.tls) as server, requests.Session() as session:
        options: dict[str, Any] = {"verify": str(files.ca), "timeout": TIMEOUT_S}
        assert session.get(f"{server.http_url}/health", **options).status_code == 200
        before = serial_number(server.http_url)
        cert, key = files.authority.issue("server")
        files.cert.write_bytes(cert)
        files.key.write_bytes(key)
        wait_until(lambda: serial_number(server.http_url) != before)
        assert session.get(f"{server.http_url}/health", **options).status_code == 200, "on its old connection"


def test_another_authority_of_clients_counts_for_new_connections(files: Files) -> None:
    with running_server(**files.tls, tls_client_ca=files.ca) as server:
        assert files.get(server.http_url).status_code == 200
        other = Authority("Another")
        files.ca.write_bytes(other.certificate)
        verify = files.folder / "first.pem"
        verify.write_bytes(files.authority.certificate)

        def is_refused() -> bool:
            try:
                files.get(server.http_url, verify=str(verify))
            except requests.ConnectionError:
                return True
            return False

        wait_until(is_refused)


def test_a_handshake_that_does_not_come_ends_in_time(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "HANDSHAKE_TIMEOUT_S", 0.1)
    with running_server(**files.tls) as server:
        for data in ("", "\x16\x03\x01", "GET / HTTP/1.1\r\n\r\n"):
            with RawConnection(server.http_url) as caller:
                caller.send(data)
                while not caller.is_closed():  # an alert of TLS comes first
                    pass
        assert files.get(server.http_url, cert=None).status_code == 200


def test_a_large_response_and_a_large_body_pass_through_tls(files: Files) -> None:
    with running_server(**files.tls) as server:
        script = files.get(server.http_url, "/openapi.json", cert=None)
        assert script.status_code == 200
        assert len(script.content) == int(script.headers["content-length"]) > 10_000
        sent = requests.post(
            f"{server.http_url}/infer", files={"image": bytes(20 * 2**20)}, verify=str(files.ca), timeout=TIMEOUT_S
        )
        assert sent.status_code in (400, 404), sent.content


def test_who_does_not_read_is_ended(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(events, "SILENCE_S", 0.0)
    monkeypatch.setattr(events, "_COMMENT", b":" + b"-" * 100_000 + b"\n\n")
    with ExitStack() as stack:
        server = CountedServer(stack, **files.tls)
        context = ssl.create_default_context(cafile=str(files.ca))
        host, port = server.http_url.removeprefix("https://").split(":")
        plain = stack.enter_context(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
        caller = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
        caller.sendall(b"GET /watch/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.application.calls.held.count == 1)
        server.wait_until_nothing_is_held()
        wait_until(lambda: server.http_connections() == 0)
