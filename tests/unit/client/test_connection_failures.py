"""Each way in which a connection cannot be made is a sentence of its own, in both clients and in the shell."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from fakes.certificates import Authority
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer, serving
from fakes.terminal import Run, command

from patchserve_client import Health, TlsConfig, Unavailable


@dataclass(frozen=True)
class Servers:
    """Addresses, and the folder of the certificates."""

    folder: Path
    tls: str
    mutual: str

    def config(self, ca: str = "ours", cert: str | None = None, key: str | None = None) -> TlsConfig:
        def file(name: str | None, suffix: str) -> Path | None:
            return None if name is None else self.folder / f"{name}{suffix}"

        return TlsConfig(file(ca, ".pem"), file(cert, ".pem"), file(key or cert, ".key"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server with TLS and one that requires client certificates."""
    folder = tmp_path_factory.mktemp("tls")
    ours, others = Authority("Ours"), Authority("Others")
    (folder / "ours.pem").write_bytes(ours.certificate)
    (folder / "others.pem").write_bytes(others.certificate)
    cert, key = ours.write(folder, "server")
    ours.write(folder, "client")
    others.write(folder, "stranger")
    pair = [(key.read_bytes(), cert.read_bytes())]
    mutual = grpc.ssl_server_credentials(pair, root_certificates=ours.certificate, require_client_auth=True)
    with serving(grpc.ssl_server_credentials(pair)) as tls_server, serving(mutual) as mutual_server:
        yield Servers(folder, tls_server.address, mutual_server.address)


@contextmanager
def http_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def message(call: CallMethod, address: str, tls: TlsConfig | None = None) -> str:
    with pytest.raises(Unavailable) as caught:
        call(address, "health", client={"tls": tls})
    assert caught.value.reason == ""
    return caught.value.message


def test_plain_text_to_a_server_with_tls(servers: Servers, call: CallMethod) -> None:
    for address in (servers.tls, servers.mutual):
        assert "It probably expects TLS: set `tls`." in message(call, address)


def test_tls_to_a_server_without_it(servers: Servers, fake: FakeServer, call: CallMethod) -> None:
    assert "does not use TLS" in message(call, fake.address, servers.config())


def test_a_certificate_of_an_unknown_authority(servers: Servers, call: CallMethod) -> None:
    for tls in (TlsConfig(), servers.config(ca="others")):
        assert "not from an authority that this client trusts" in message(call, servers.tls, tls)


def test_a_certificate_for_another_name(servers: Servers, call: CallMethod) -> None:
    port = servers.tls.rpartition(":")[2]
    other_name = f"ipv4:127.0.0.1:{port},127.0.0.1:{port}"  # gRPC expects a name that consists of both
    assert "is for another name" in message(call, other_name, servers.config())


def test_a_missing_and_an_unknown_client_certificate(servers: Servers, call: CallMethod) -> None:
    assert "probably requires a client certificate" in message(call, servers.mutual, servers.config())
    stranger = servers.config(cert="stranger")
    assert "probably does not trust the client certificate" in message(call, servers.mutual, stranger)
    known = servers.config(cert="client")
    assert call(servers.mutual, "health", client={"tls": known}) == Health(alive=True, ready=True)


def test_files_that_are_damaged_or_do_not_belong_together(servers: Servers, call: CallMethod) -> None:
    with pytest.raises(ValueError, match=r"client\.pem and .*stranger\.key are not a certificate and its own key"):
        call(servers.mutual, "health", client={"tls": servers.config(cert="client", key="stranger")})
    with pytest.raises(ValueError, match=r"server\.key has no certificate in PEM form"):
        call(servers.tls, "health", client={"tls": TlsConfig(servers.folder / "server.key")})


def test_another_kind_of_server_and_a_host_that_does_not_exist(call: CallMethod) -> None:
    with http_server() as address:
        assert message(call, address) == f"What answers at {address} is not a gRPC server."
    assert "there is no such socket" in message(call, "unix:/nowhere/patchserve.sock")
    assert message(call, "nowhere.invalid:1") == "The host in the server's address nowhere.invalid:1 was not found."


def test_a_server_that_closes_connections(call: CallMethod) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_each() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=close_each)
        thread.start()
        try:
            assert "closes the connection before it answers" in message(call, f"127.0.0.1:{listening.getsockname()[1]}")
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--server", "{tls}"], "It probably expects TLS: set --tls."),
        (["--server", "{plain}", "--tls"], "does not use TLS. Leave out --tls, --ca, --cert, --key"),
        (["--server", "{tls}", "--ca", "{folder}/others.pem"], "Set --ca to the certificate of the authority"),
        (["--server", "{mutual}", "--ca", "{folder}/ours.pem"], "set --cert and --key."),
    ],
)
def test_the_shell_prints_one_sentence_and_nothing_of_grpc(
    servers: Servers, fake: FakeServer, options: list[str], says: str
) -> None:
    places = {"tls": servers.tls, "mutual": servers.mutual, "plain": fake.address, "folder": servers.folder}
    arguments = [option.format(**places) for option in options]
    done = subprocess.run(command("health", *arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: ")
    assert says in done.stderr
    assert "patchserve-server serve" not in done.stderr  # there is one


def test_variables_set_what_options_set(servers: Servers, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_SERVER", servers.mutual)
    monkeypatch.setenv("PATCHSERVE_TLS", "1")
    assert "--ca" in run("health")[2]
    monkeypatch.delenv("PATCHSERVE_TLS")
    monkeypatch.setenv("PATCHSERVE_CA", str(servers.folder / "ours.pem"))
    monkeypatch.setenv("PATCHSERVE_CERT", str(servers.folder / "client.pem"))
    monkeypatch.setenv("PATCHSERVE_KEY", str(servers.folder / "client.key"))
    assert run("health") == (0, "alive: yes\nready: yes\n", "")
    assert run("health", "--ca", servers.folder / "others.pem")[0] == 1  # an option wins


def test_the_variable_of_the_token_file(
    run: Run, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from-the-file\n")
    monkeypatch.setenv("PATCHSERVE_TOKEN_FILE", str(tmp_path / "token"))
    assert run("info")[0] == 0
    assert fake.metadata[-1]["authorization"] == "Bearer from-the-file"
    monkeypatch.setenv("PATCHSERVE_TOKEN_FILE", str(tmp_path / "missing"))
    code, _, stderr = run("info")
    assert code == 2
    assert "Invalid value for 'PATCHSERVE_TOKEN_FILE': There is no file " in stderr  # and not for --token-file
