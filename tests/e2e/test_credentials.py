"""Certificates and tokens: at the start, when they are renewed, and with our own client."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import refusal, server_process
from e2e.in_process import in_process_server
from fakes.certificates import Authority
from fakes.images import card, encoded
from fakes.issuer import Issuer
from fakes.waiting import wait_until
from typer.testing import CliRunner

from patchserve.v1 import reference_pb2, service_pb2_grpc
from patchserve_client import (
    AsyncClient,
    Client,
    Frame,
    PatchserveError,
    PermissionDenied,
    TlsConfig,
    Unauthenticated,
    Unavailable,
)
from patchserve_client.cli import app
from patchserve_server.access import reloading
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError


@pytest.fixture(autouse=True)
def files_are_read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "INTERVAL_S", 0.02)


class Files:
    """Certificates of the server and a client, their authority, and two tokens."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.cert, self.key = self.authority.write(folder, "server")
        self.own_cert, self.own_key = self.authority.write(folder, "camera-3")
        self.ca, self.tokens = folder / "ca.pem", folder / "tokens"
        self.ca.write_bytes(self.authority.certificate)
        self.token, line = new_token("everything", list(Scope))
        self.infer_token, infer_line = new_token("camera-3", [Scope.INFER])
        self.infer_line = infer_line
        self.tokens.write_text(f"{line}\n{infer_line}\n")

    @property
    def tls(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": self.key}

    @property
    def mutual(self) -> TlsConfig:
        return TlsConfig(self.ca, self.own_cert, self.own_key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_our_client_over_mutual_tls_with_a_token(files: Files, tmp_path: Path) -> None:
    images = [card(seed) for seed in range(3)]
    with in_process_server(**files.tls, tls_client_ca=files.ca, auth_tokens=files.tokens) as address:
        with Client(address, tls=files.mutual, token=files.token) as client:
            assert client.load_reference(images, "belt").image_count == 3
            assert client.infer(images[0], "belt").reference_id == "belt"
            assert len(list(client.infer_stream(images, "belt"))) == 3
        with Client(address, tls=files.mutual, token=files.infer_token) as client:
            assert client.infer(images[0], "belt").reference_id == "belt"
            with pytest.raises(PermissionDenied) as denied:
                client.delete_reference("belt")
            assert denied.value.reason == "SCOPE_MISSING"
        with Client(address, tls=files.mutual) as client:
            assert client.health().ready
            with pytest.raises(Unauthenticated):
                client.server_info()
        for tls in (None, TlsConfig(), TlsConfig(files.ca)):
            with Client(address, tls=tls, token=files.token, timeout_s=5) as client, pytest.raises(Unavailable):
                client.health()
        asyncio.run(ask_async(address, files))

        (tmp_path / "token").write_text(files.infer_token + "\n")
        way = ["--server", address, "--ca", files.ca, "--cert", files.own_cert, "--key", files.own_key]
        typed = [str(word) for word in (*way, "--token-file", tmp_path / "token")]
        run = CliRunner().invoke
        assert "belt" in run(app, [*typed, "reference", "list"]).stdout
        assert "belt" in run(app, [*typed, "reference", "list"], env={"PATCHSERVE_TOKEN": "another"}).stdout
        refused = run(app, [*typed, "reference", "delete", "belt"])
        assert (refused.exit_code, "SCOPE_MISSING" in refused.stderr) == (1, True)


async def ask_async(address: str, files: Files) -> None:
    given: list[str] = []

    def token() -> str:
        given.append(files.infer_token)
        return given[-1]

    async with AsyncClient(address, tls=files.mutual, token=token) as client:
        assert [reference.reference_id async for reference in client.list_references()] == ["belt"]
        await client.server_info()
    assert len(given) == 2, "asked for with every call"


def test_with_a_certificate_and_no_tokens_a_client_may_do_everything(files: Files) -> None:
    with (
        in_process_server(**files.tls, tls_client_ca=files.ca) as address,
        Client(address, tls=files.mutual) as client,
    ):
        client.load_reference([card(1)])
        client.delete_reference("default")


def test_a_renewed_certificate_is_shown_without_a_restart(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    new_ca = files.ca.with_name("new_ca.pem")
    successor = Authority("Successor")
    new_ca.write_bytes(successor.certificate)
    cert, key = successor.issue("server")

    def trusts(address: str, ca: Path) -> bool:
        with Client(address, tls=TlsConfig(ca), timeout_s=5) as client:
            try:
                return client.health().ready
            except Unavailable:
                return False

    with in_process_server(**files.tls) as address, Client(address, tls=TlsConfig(files.ca)) as before:
        assert before.health().ready
        assert not trusts(address, new_ca)
        files.cert.write_bytes(cert)  # half of it: the key is still the old one
        wait_until(lambda: "--tls-key does not belong" in caplog.text)
        assert trusts(address, files.ca), "the old certificate stays in use"
        files.key.write_bytes(key)
        wait_until(lambda: trusts(address, new_ca))
        assert not trusts(address, files.ca)
        assert before.health().ready, "what was connected stays connected"
        files.key.write_text("no key")
        wait_until(lambda: "no private key" in caplog.text)
        files.cert.unlink()
        wait_until(lambda: "No such file" in caplog.text)
        assert trusts(address, new_ca)
    assert caplog.text.count("--tls-key does not belong") == 1, "logged once, not at every look"


def test_a_token_is_added_and_revoked_without_a_restart(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with in_process_server(auth_tokens=files.tokens) as address, Client(address, token=files.infer_token) as client:

        def gets_in() -> bool:
            try:
                return bool(client.server_info().version)
            except Unauthenticated:
                return False

        assert gets_in()
        files.tokens.write_text(new_token("another", [Scope.INFER])[1])
        wait_until(lambda: not gets_in())
        files.tokens.write_text(files.infer_line)
        wait_until(gets_in)
        files.tokens.write_text("damaged")
        wait_until(lambda: "--auth-tokens, line 1" in caplog.text)
        assert gets_in()


def test_a_stream_ends_when_its_token_is_revoked_and_loses_no_frame(files: Files) -> None:
    image = encoded(card(1))
    sent = 0
    let_go = threading.Event()

    def frames() -> Iterator[Frame]:
        nonlocal sent
        while not let_go.is_set():
            sent += 1
            yield Frame(image, frame_id=str(sent))

    with in_process_server(auth_tokens=files.tokens) as address, Client(address, token=files.token) as manager:
        manager.load_reference([card(1)])
        with Client(address, token=files.infer_token) as client:
            results = client.infer_stream(frames(), max_in_flight=4)
            sequences = [next(results).sequence]
            files.tokens.write_text(new_token("another", [Scope.INFER])[1])
            with pytest.raises(Unauthenticated) as ended:  # noqa: PT012 - the end of the stream is what raises
                for result in results:
                    assert result.error is None
                    sequences.append(result.sequence)
            let_go.set()
    assert ended.value.reason == "INVALID_CREDENTIALS"
    assert sequences == list(range(len(sequences))), "what was accepted is answered"


def test_a_streamed_load_ends_when_its_token_is_revoked(files: Files) -> None:
    """No reference is made of the images that arrived before."""
    image = encoded(card(1))

    def messages() -> Iterator[reference_pb2.LoadReferenceStreamRequest]:
        yield reference_pb2.LoadReferenceStreamRequest(start=reference_pb2.LoadReferenceRequest())
        yield reference_pb2.LoadReferenceStreamRequest(image=image)
        files.tokens.write_text(files.infer_line)
        while True:
            yield reference_pb2.LoadReferenceStreamRequest(image=image)

    with (
        in_process_server(auth_tokens=files.tokens, max_reference_images=50_000) as address,
        grpc.insecure_channel(address) as channel,
        Client(address, token=files.infer_token) as looking,
    ):
        stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.LoadReferenceStream(messages(), metadata=(("authorization", f"Bearer {files.token}"),), timeout=60)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS")
        assert list(looking.list_references()) == []


def refused(**settings: Any) -> str:
    with pytest.raises(StartupError) as caught, in_process_server(**settings):
        pass
    return caught.value.message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "0", "unix", "no.such.host.invalid"])
def test_plain_text_is_served_to_this_machine_only(files: Files, host: str) -> None:
    for settings in ({}, {"auth_tokens": files.tokens}):
        assert "--insecure" in refused(host=host, **settings)


def test_insecure_or_tls_serves_other_machines(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with in_process_server(host="0.0.0.0", insecure=True) as address, Client(address) as client:
        assert client.health().ready
        assert "sent unencrypted" in caplog.text
        assert "Anybody who can reach 0.0.0.0 can load and delete" in caplog.text
    caplog.clear()
    with in_process_server(host="0.0.0.0", **files.tls, auth_tokens=files.tokens):
        assert not caplog.text
    with in_process_server(host="0.0.0.0", **files.tls, tls_client_ca=files.ca):
        assert not caplog.text


def test_unusable_credentials_prevent_the_start(files: Files, tmp_path: Path) -> None:
    other_cert, _ = files.authority.write(tmp_path, "other")
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.write_text("# nobody\n")
    jwt = {"jwt_issuer": Issuer.name, "jwt_audience": Issuer.audience}
    assert "does not belong" in refused(tls_cert=other_cert, tls_key=files.key)
    assert "--tls-key" in refused(tls_cert=files.cert, tls_key=missing)
    assert "no private key" in refused(tls_cert=files.cert, tls_key=files.cert)
    assert "no certificate" in refused(tls_cert=files.key, tls_key=files.key)
    assert "no certificate" in refused(**files.tls, tls_client_ca=empty)
    assert "both --tls-cert and --tls-key" in refused(tls_cert=files.cert)
    assert "both --tls-cert and --tls-key" in refused(tls_client_ca=files.ca)
    assert "no token in the file" in refused(auth_tokens=empty)
    assert "--jwt-jwks" in refused(**jwt)
    assert "not a set of public keys" in refused(**jwt, jwt_jwks=empty)
    assert "Is a directory" in refused(auth_tokens=tmp_path)


def test_a_key_that_every_user_can_read_is_logged(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.key.chmod(0o644)
    with in_process_server(**files.tls):
        assert "every user of this machine can read it" in caplog.text


def test_the_command_accepts_a_token_that_it_created(tmp_path: Path) -> None:
    files = Files(tmp_path)
    command = [str(Path(sys.executable).parent / "patchserve-server"), "token", "create", "--name", "me"]
    command += ["--scope", "infer", "--scope", "manage", "--expires", "2999-12-31"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    token, line = made.stdout.splitlines()
    assert token not in made.stderr + line
    files.tokens.write_text(line)
    paths = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--auth-tokens", str(files.tokens))
    with server_process(*paths) as server:
        address = server.address.replace("127.0.0.1", "localhost")
        with Client(address, tls=TlsConfig(files.ca), token=token) as client:
            assert client.load_reference([card(1)]).image_count == 1
        with Client(address, tls=TlsConfig(files.ca), token=token + "x") as client, pytest.raises(PatchserveError):
            client.server_info()
    assert token not in server.log


def test_sighup_reloads_the_files_and_does_not_stop_the_server(files: Files) -> None:
    with server_process("--auth-tokens", str(files.tokens)) as server:
        new_token_text, line = new_token("new", [Scope.INFER])
        files.tokens.write_text(f"{line}\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Read the files again: --auth-tokens: in use as they are now." in server.log)
        with Client(server.address, token=new_token_text) as client:
            assert client.server_info().version
        with Client(server.address, token=files.token) as client, pytest.raises(Unauthenticated):
            client.server_info()
        files.tokens.write_text("nonsense\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "--auth-tokens: cannot be used, the previous content stays." in server.log)
        with Client(server.address, token=new_token_text) as client:
            assert client.server_info().version
