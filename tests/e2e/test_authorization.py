"""Authorization: every method with every kind of credential over every transport."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import refusal
from e2e.in_process import in_process_server
from fakes.certificates import Authority
from fakes.issuer import Issuer
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import service_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.rpc.methods import METHODS as TABLE
from patchserve_server.telemetry.log_lines import fields_of, writer_of

SERVICE = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"]
KSERVE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
OPEN = ("ServerLive", "ServerReady")
METHODS: dict[str, MethodDescriptor] = {
    name: method
    for service in (SERVICE, KSERVE)
    for name, method in service.methods_by_name.items()
    if name not in OPEN
}
TRANSPORTS = ("plain", "tls", "mtls")
OTHER = {Scope.INFER: Scope.MANAGE, Scope.MANAGE: Scope.INFER}
Outcome = tuple[grpc.StatusCode, str]
REFUSALS: dict[str, Outcome] = {
    "none": (grpc.StatusCode.UNAUTHENTICATED, "NO_CREDENTIALS"),
    "wrong": (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"),
    "expired": (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_EXPIRED"),
    "wrong-scope": (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"),
}


class Credentials:
    """The credentials of the callers in these tests, by kind ("token", "jwt") and quality."""

    def __init__(self, folder: Path) -> None:
        self.issuer, impostor = Issuer(), Issuer()  # both say that their key is `first`
        self.tokens_file, self.jwks_file = folder / "tokens", folder / "jwks.json"
        self.jwks_file.write_text(self.issuer.jwks())
        self._by: dict[tuple[str, str], str] = {}
        lines = ["# name  scopes  hash  expiry", ""]
        past = datetime.now(UTC) - timedelta(seconds=1)
        for scope in Scope:
            self._by["token", scope], line = new_token("robot", [scope])
            self._by["jwt", scope] = self.issuer.sign(self.issuer.claims(scope))
            lines.append(line)
        self._by["token", "expired"], line = new_token("robot", list(Scope), past)
        self._by["token", "wrong"], _ = new_token("robot", list(Scope))
        self._by["jwt", "expired"] = self.issuer.sign(self.issuer.claims(expires_s=-60))
        self._by["jwt", "wrong"] = impostor.sign(impostor.claims())
        self.tokens_file.write_text("\n".join([*lines, line, ""]))

    def get(self, kind: str, quality: str, scope: Scope) -> str:
        """The token; empty for the quality "none"."""
        if quality == "none":
            return ""
        return self._by[kind, {"right": scope, "wrong-scope": OTHER[scope]}.get(quality, quality)]

    def secrets(self) -> list[str]:
        """The secret parts: a JWT's signature, and a token of the file without its prefix."""
        return [secret.rpartition(".")[2].removeprefix("patchserve_") for secret in self._by.values()]


@dataclasses.dataclass(frozen=True)
class Servers:
    """One server for each transport, and one that needs no credentials."""

    credentials: Credentials
    channels: dict[str, grpc.Channel]
    without_certificate: grpc.Channel  # to "mtls"
    addresses: dict[str, str]


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    """Everything that the servers log, from DEBUG up."""
    lines: list[str] = []
    write = writer_of("json")

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(write(fields_of(record)))

    handler, logger = Keeping(), logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, log: list[str]) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("credentials")
    credentials, authority = Credentials(folder), Authority()
    (cert, key), (own_cert, own_key) = authority.write(folder, "server"), authority.issue("camera-3")
    (folder / "ca.pem").write_bytes(authority.certificate)
    asked: dict[str, Any] = {
        "auth_tokens": credentials.tokens_file,
        "jwt_issuer": Issuer.name,
        "jwt_audience": Issuer.audience,
        "jwt_jwks": credentials.jwks_file,
    }
    tls: dict[str, Any] = {"tls_cert": cert, "tls_key": key}
    trusting = grpc.ssl_channel_credentials(authority.certificate)
    certified = grpc.ssl_channel_credentials(authority.certificate, own_key, own_cert)
    with ExitStack() as stack:
        addresses = {
            "open": stack.enter_context(in_process_server()),
            "plain": stack.enter_context(in_process_server(**asked)),
            "tls": stack.enter_context(in_process_server(**asked, **tls)),
            "mtls": stack.enter_context(in_process_server(**asked, **tls, tls_client_ca=folder / "ca.pem")),
        }
        channels = {
            "open": grpc.insecure_channel(addresses["open"]),
            "plain": grpc.insecure_channel(addresses["plain"]),
            "tls": grpc.secure_channel(addresses["tls"], trusting),
            "mtls": grpc.secure_channel(addresses["mtls"], certified),
        }
        without_certificate = grpc.secure_channel(addresses["mtls"], trusting)
        for channel in (*channels.values(), without_certificate):
            stack.enter_context(channel)
        yield Servers(credentials, channels, without_certificate, addresses)


def authorized(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def ask(channel: grpc.Channel, method: MethodDescriptor, metadata: Any, request: bytes = b"") -> Any:
    """Calls the method with one message and returns its response, or all of them."""
    arity = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    parse = GetMessageClass(method.output_type).FromString
    call = getattr(channel, arity)(path_of(method), request_serializer=bytes, response_deserializer=parse)
    answer = call(iter([request]) if method.client_streaming else request, metadata=metadata, timeout=20)
    return list(answer) if method.server_streaming else answer


def outcome(channel: grpc.Channel, method: MethodDescriptor, metadata: Any, request: bytes = b"") -> Outcome:
    try:
        ask(channel, method, metadata, request)
    except grpc.RpcError as error:
        code, reason, _ = refusal(error)
        return code, reason
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("quality", [*REFUSALS, "right"])
@pytest.mark.parametrize("kind", ["token", "jwt"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_with_every_credential(servers: Servers, name: str, transport: str, kind: str, quality: str) -> None:
    scope = TABLE[path_of(METHODS[name])].scope
    assert isinstance(scope, Scope)
    metadata = authorized(servers.credentials.get(kind, quality, scope))
    expected = REFUSALS.get(quality) or outcome(servers.channels["open"], METHODS[name], ())
    assert outcome(servers.channels[transport], METHODS[name], metadata) == expected


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("quality", [*REFUSALS, "right"])
def test_without_a_client_certificate_no_token_helps(servers: Servers, name: str, quality: str) -> None:
    metadata = authorized(servers.credentials.get("token", quality, Scope.INFER))
    with pytest.raises(grpc.RpcError) as caught:
        ask(servers.without_certificate, METHODS[name], metadata)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "Basic cm9ib3Q6cm9ib3Q=")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer a.b.c")],
        [("authorization", "Bearer " + "x" * 4000)],
        "twice",
    ],
)
def test_malformed_credentials_are_refused(servers: Servers, metadata: Any) -> None:
    right = authorized(servers.credentials.get("token", "right", Scope.INFER))
    sent = [*right, *right] if metadata == "twice" else metadata
    assert outcome(servers.channels["plain"], METHODS["GetServerInfo"], sent) == REFUSALS["wrong"]


def test_the_scheme_may_be_written_in_any_case(servers: Servers) -> None:
    token = servers.credentials.get("token", "right", Scope.INFER)
    for scheme in ("bearer", "BEARER"):
        metadata = (("authorization", f"{scheme} {token}"),)
        assert outcome(servers.channels["plain"], METHODS["GetServerInfo"], metadata)[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("name", METHODS)
def test_a_caller_is_refused_before_its_message_is_parsed(servers: Servers, name: str) -> None:
    garbage = b"\xff" * 2**20
    assert outcome(servers.channels["plain"], METHODS[name], (), garbage) == REFUSALS["none"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_health_is_open_and_reflection_needs_any_valid_token(servers: Servers, transport: str) -> None:
    channel = servers.channels[transport]
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE.full_name):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    for name in OPEN:
        assert outcome(channel, KSERVE.methods_by_name[name], ()) == (grpc.StatusCode.OK, "")

    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

    def services(token: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return next(reflection.ServerReflectionInfo(iter([request]), metadata=authorized(token)))

    for scope in Scope:
        assert SERVICE.full_name in str(services(servers.credentials.get("token", "right", scope)))
    for quality in ("none", "wrong", "expired"):
        with pytest.raises(grpc.RpcError) as caught:
            services(servers.credentials.get("jwt", quality, Scope.INFER))
        assert refusal(caught.value)[:2] == REFUSALS[quality]


def test_a_refusal_says_which_credential_is_needed(servers: Servers) -> None:
    for quality, says in (("none", "`authorization: Bearer TOKEN`"), ("wrong-scope", 'the scope "manage"')):
        metadata = authorized(servers.credentials.get("token", quality, Scope.MANAGE))
        with pytest.raises(grpc.RpcError) as caught:
            ask(servers.channels["plain"], METHODS["DeleteReference"], metadata)
        assert says in str(caught.value.details())


def test_no_secret_is_in_the_log_or_in_a_response(servers: Servers, log: list[str]) -> None:
    for method in METHODS.values():
        for quality in ("wrong", "expired", "wrong-scope", "right"):
            for kind in ("token", "jwt"):
                metadata = authorized(servers.credentials.get(kind, quality, Scope.MANAGE))
                try:
                    ask(servers.channels["mtls"], method, metadata)
                except grpc.RpcError as error:
                    log.append(f"{error.details()} {error.trailing_metadata()}")
    text = "\n".join(log)
    assert "robot" in text, "who called is logged"
    assert not [secret for secret in servers.credentials.secrets() if secret in text]
    assert "PRIVATE KEY" not in text


def test_the_log_names_the_certificate_of_a_caller_without_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    (cert, key), (own_cert, own_key) = authority.write(tmp_path, "server"), authority.issue("camera-3\n\x1b[2J")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    caplog.set_level(logging.INFO)
    certified = grpc.ssl_channel_credentials(authority.certificate, own_key, own_cert)
    with (
        in_process_server(tls_cert=cert, tls_key=key, tls_client_ca=tmp_path / "ca.pem") as address,
        grpc.secure_channel(address, certified) as channel,
    ):
        found = outcome(channel, METHODS["DeleteReference"], ())
    assert found == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
    clients = {record.__dict__["client"] for record in caplog.records if "DeleteReference" in record.message}
    assert clients == {r"certificate camera-3\n\x1b[2J"}
