"""The connection of both clients: address, TLS, token, message size, health."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from fakes.either_client import CallMethod, call_sync
from fakes.fake_server import NOT_SERVING, SERVICE, FakeServer, serving
from fakes.responses import png

from patchserve_client import (
    Client,
    Health,
    InvalidArgument,
    PatchserveError,
    ResourceExhausted,
    TlsConfig,
    Unavailable,
    Unimplemented,
)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate for localhost that signs itself, good for both sides, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    try:
        subprocess.run([*command, "-out", files["cert"], "-keyout", files["key"]], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: there is no certificate to test with")
    return files


def test_the_token_is_sent_with_every_call_and_never_shown(fake: FakeServer, call: CallMethod) -> None:
    client = {"token": "s3cret"}
    call(fake.address, "load_reference", [png()], client=client)
    call(fake.address, "load_reference", [png()], mode="append", client=client)
    call(fake.address, "infer", png(), client=client)
    if call is call_sync:
        call(fake.address, "infer_stream", [png()], client=client)
    assert {seen["authorization"] for seen in fake.metadata} == {"Bearer s3cret"}
    with Client(fake.address, token="s3cret") as opened:
        assert "s3cret" not in repr(opened) + repr(vars(opened))
    call(fake.address, "server_info")
    assert "authorization" not in fake.metadata[-1]


def test_a_token_function_is_called_for_every_call(fake: FakeServer, call: CallMethod) -> None:
    tokens = iter(["first", "second", ""])
    client = {"token": lambda: next(tokens)}
    for expected in ("Bearer first", "Bearer second", None):
        call(fake.address, "server_info", client=client)
        assert fake.metadata[-1].get("authorization") == expected


@pytest.mark.parametrize("token", ["two words", "line\n", "t\u00f6ken", "nul\0"])
def test_a_token_that_a_header_cannot_carry_is_rejected_and_not_shown(
    fake: FakeServer, call: CallMethod, token: str
) -> None:
    for source in (token, lambda: token):
        with pytest.raises(ValueError, match="The token has a blank, a newline or") as caught:
            call(fake.address, "server_info", client={"token": source})
        assert token not in str(caught.value)
    assert not fake.requests["GetServerInfo"]


@pytest.mark.parametrize(
    "server", ["192.0.2.1:50051", "example.test:50051", "[2001:db8::1]:1", "dns://ns.test/localhost:1"]
)
def test_a_token_is_sent_unencrypted_to_this_machine_only(server: str) -> None:
    for token in ("s3cret", lambda: "s3cret"):
        with pytest.raises(ValueError, match="unencrypted") as caught:
            Client(server, token=token)
        assert "s3cret" not in str(caught.value)
        Client(server, token=token, tls=TlsConfig()).close()
        Client(server, token=token, insecure_token=True).close()
    Client(server).close()
    for here in ("localhost", "127.0.0.1:1", "127.1.2.3", "[::1]:1", "dns:///localhost:1", "unix:/tmp/socket"):
        Client(here, token="s3cret").close()


def test_a_message_over_the_limit_is_not_sent(fake: FakeServer, call: CallMethod) -> None:
    with pytest.raises(ResourceExhausted):
        call(fake.address, "infer", bytes(2 * 2**20), client={"max_message_mib": 1})
    assert not fake.requests["Infer"]


def test_messages_over_the_default_limit_of_grpc_can_be_sent_and_received(fake: FakeServer, call: CallMethod) -> None:
    large = bytes(5 * 2**20)
    with pytest.raises(InvalidArgument):  # it arrived, and is not an image
        call(fake.address, "infer", large)
    fake.overlay = large
    assert call(fake.address, "infer", png(), overlay=True).encoded_overlay.data == large


def test_health_reports_alive_and_ready_separately(fake: FakeServer, call: CallMethod) -> None:
    assert call(fake.address, "health") == Health(alive=True, ready=True)
    asyncio.run(fake.health.set(SERVICE, NOT_SERVING))
    assert call(fake.address, "health") == Health(alive=True, ready=False)
    fake.health._server_status.pop(SERVICE)
    assert call(fake.address, "health") == Health(alive=True, ready=False)


def test_an_error_without_a_server_names_the_address(call: CallMethod) -> None:
    with pytest.raises(Unavailable, match="No server answers at localhost:1: ") as caught:
        call("localhost:1", "health")
    assert caught.value.reason == ""


def test_another_service_at_the_address_is_unimplemented(call: CallMethod) -> None:
    server = grpc.server(thread_pool=None)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(Unimplemented):
            call(f"127.0.0.1:{port}", "server_info")
    finally:
        server.stop(None)


@pytest.mark.parametrize("address", ["", "http://localhost:50051", "https://example.com"])
def test_an_address_must_be_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(address)


def test_no_proxy_is_used_for_this_machine(fake: FakeServer) -> None:
    code = f"from patchserve_client import Client; print(Client({fake.address!r}, timeout_s=20).health())"
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "grpc_proxy": "http://127.0.0.1:1"}
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "Health(alive=True, ready=True)\n", done.stderr


def test_tls_and_mutual_tls(pem: dict[str, Path], call: CallMethod) -> None:
    pair = (pem["key"].read_bytes(), pem["cert"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=pair[1], require_client_auth=True)
    with serving(credentials) as fake:
        both = TlsConfig(ca_file=pem["cert"], cert_file=pem["cert"], key_file=pem["key"])
        assert call(fake.address, "health", client={"tls": both}) == Health(alive=True, ready=True)
        for wrong in (None, TlsConfig(), TlsConfig(ca_file=pem["cert"])):
            with pytest.raises(PatchserveError):
                call(fake.address, "health", client={"tls": wrong})


def test_half_a_certificate_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key_file"):
        TlsConfig(cert_file="cert.pem")
    with pytest.raises(FileNotFoundError):
        Client("localhost:1", tls=TlsConfig(ca_file=tmp_path / "missing.pem"))
