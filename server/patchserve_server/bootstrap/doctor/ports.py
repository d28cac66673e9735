"""The addresses to listen on: free, used by a server of ours, or by another program."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

from patchserve_server.access.addresses import is_unix_socket, listening_address
from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok
from patchserve_server.config import Settings

_TIMEOUT_S: Final = 2.0
_MOST_BYTES: Final = 100_000
_LOCAL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - they are compared, not bound


@dataclass(frozen=True, slots=True)
class _Port:
    """A port to listen on. `host_flag` and `flag` set its host and its number."""

    subject: str
    flag: str
    host: str
    number: int | None
    host_flag: str = "--host"

    @property
    def address(self) -> str:
        return listening_address(self.host, self.number or 0)

    @property
    def local_address(self) -> str:
        """The same for a client on this machine."""
        bare = self.host.strip("[]")
        return listening_address(_LOCAL.get(bare, bare), self.number or 0)

    def collides_with(self, other: _Port) -> bool:
        """Whether only one of both can be listened on. A free port, 0, is always another one."""
        hosts = {self.host.strip("[]"), other.host.strip("[]")}
        return bool(self.number) and self.number == other.number and (len(hosts) == 1 or not hosts.isdisjoint(_LOCAL))


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether each port can be listened on, or who listens there."""
    before: list[_Port] = []
    for port in _ports(settings):
        if is_unix_socket(port.host):
            yield _check_socket_file(port.host)
        elif other := next((each for each in before if each.collides_with(port)), None):
            yield fault(
                port.subject, f"{port.flag} and {other.flag} are both {port.number}", f"Set another {port.flag}."
            )
        elif port.number is not None:
            yield _check_port(port, settings.tls_cert)
        before.append(port)


def _ports(settings: Settings) -> Iterator[_Port]:
    host = settings.host
    yield _Port("port", "--port", host, settings.port)
    if not is_unix_socket(host):
        yield _Port("http port", "--http-port", host, settings.http_port)
    if settings.metrics_port is not None:
        own = settings.metrics_host or ("127.0.0.1" if is_unix_socket(host) else host)
        yield _Port("metrics port", "--metrics-port", own, settings.metrics_port, "--metrics-host")


def _check_port(port: _Port, certificate: Path | None) -> Finding:
    try:
        with ExitStack() as trial:
            _bind(port.host, port.number or 0, trial)
    except PermissionError:
        return fault(port.subject, f"{port.address} may not be listened on", f"Set {port.flag} to 1024 or above.")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            advice = f"Correct {port.host_flag}: this machine does not have it."
            return fault(port.subject, f"{port.address}: {error.strerror or error}", advice)
    else:
        return ok(port.subject, f"{port.address} is free" if port.number else "any free one")
    if who := _who_listens(port, certificate):
        return ok(port.subject, f"{port.address}: {who}")
    advice = f"Stop it, or choose another port with {port.flag}."
    return fault(port.subject, f"another program listens on {port.address}", advice)


def _bind(host: str, port: int, trial: ExitStack) -> None:
    bare = host.strip("[]")
    for family, *_, address in socket.getaddrinfo(bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        bound = trial.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if os.name != "nt":  # there it would allow to take a port from another program
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)


def _who_listens(port: _Port, certificate: Path | None) -> str:
    """The server of ours that listens there, in words; empty: it is none."""
    if certificate is not None:
        return "a server with this certificate runs" if _has_certificate(port, certificate) else ""
    if port.subject == "http port":
        return "a patchserve runs" if _get(port, "/v2/health/live")[1] == b'{"live":true}' else ""
    if port.subject == "metrics port":
        return "the metrics of a patchserve" if _get(port, "/metrics")[0].startswith("patchserve") else ""
    from patchserve_server.rpc.probe import answers  # noqa: PLC0415 - imports gRPC

    state = answers(port.local_address)
    return f"a patchserve runs, and is {state}" if state else ""


def _has_certificate(port: _Port, file: Path) -> bool:
    bare = port.host.strip("[]")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is compared as a whole
    context.set_alpn_protocols(["h2", "http/1.1"])
    with suppress(OSError, ValueError):
        own = ssl.PEM_cert_to_DER_cert(
            file.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
        )
        with (
            socket.create_connection((_LOCAL.get(bare, bare), port.number or 0), _TIMEOUT_S) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return connection.getpeercert(binary_form=True) == own
    return False


def _get(port: _Port, path: str) -> tuple[str, bytes]:
    """The name of the server, and what it answers, also to those without a token; empty: nobody answers by HTTP."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{port.local_address}{path}", timeout=_TIMEOUT_S) as answer:
            return answer.headers.get("server", ""), bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return error.headers.get("server", ""), bytes(error.read(_MOST_BYTES))
    except (OSError, HTTPException):
        return "", b""


def _check_socket_file(address: str) -> Finding:
    path = Path(address.partition(":")[2].removeprefix("//"))
    if path.exists():
        from patchserve_server.rpc.probe import answers  # noqa: PLC0415 - imports gRPC

        state = answers(address)
        return ok(
            "port", f"{address}: " + (f"a patchserve runs, and is {state}" if state else "left by a server that ended")
        )
    if os.access(path.absolute().parent, os.W_OK | os.X_OK):
        return ok("port", f"{address} is free")
    return fault("port", f"{address} cannot be created", "Create its folder, and let the server's user write to it.")
