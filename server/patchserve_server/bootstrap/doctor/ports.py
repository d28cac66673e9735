"""The addresses to listen on: free, used by a server of ours, or by another program."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from patchserve_server.access.addresses import is_unix_socket, listening_address
from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok
from patchserve_server.config import Settings

_TIMEOUT_S: Final = 2.0
_LOCAL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - they are compared, not bound


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether each port can be listened on, or who listens there."""
    if is_unix_socket(settings.host):
        yield _check_socket_file(settings.host)
        return
    for subject, flag, port in (("port", "--port", settings.port), ("http port", "--http-port", settings.http_port)):
        if port is not None:
            yield _check_port(settings, subject, flag, port)


def _check_port(settings: Settings, subject: str, flag: str, port: int) -> Finding:
    address = listening_address(settings.host, port)
    try:
        with ExitStack() as trial:
            _bind(settings.host, port, trial)
    except PermissionError:
        return fault(subject, f"{address} may not be listened on", f"Set {flag} to 1024 or above.")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return fault(
                subject, f"{address}: {error.strerror or error}", "Correct --host: this machine does not have it."
            )
    else:
        return ok(subject, f"{address} is free" if port else "any free one")
    if who := _who_listens(settings, subject, port):
        return ok(subject, f"{address}: {who}")
    return fault(subject, f"another program listens on {address}", f"Stop it, or choose another port with {flag}.")


def _bind(host: str, port: int, trial: ExitStack) -> None:
    bare = host.strip("[]")
    for family, *_, address in socket.getaddrinfo(bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        bound = trial.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if os.name != "nt":  # there it would allow to take a port from another program
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)


def _who_listens(settings: Settings, subject: str, port: int) -> str:
    """The server of ours that listens there, in words; empty: it is none."""
    bare = settings.host.strip("[]")
    host = _LOCAL.get(bare, bare)
    if settings.tls_cert is not None:
        return "a server with this certificate runs" if _has_certificate(host, port, settings.tls_cert) else ""
    if subject == "http port":
        return "a patchserve runs" if _is_our_http(f"http://{listening_address(host, port)}") else ""
    from patchserve_server.rpc.probe import answers  # noqa: PLC0415 - imports gRPC

    state = answers(listening_address(host, port))
    return f"a patchserve runs, and is {state}" if state else ""


def _has_certificate(host: str, port: int, file: Path) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is compared as a whole
    context.set_alpn_protocols(["h2", "http/1.1"])
    with suppress(OSError, ValueError):
        own = ssl.PEM_cert_to_DER_cert(
            file.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
        )
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return connection.getpeercert(binary_form=True) == own
    return False


def _is_our_http(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError, ValueError), opener.open(f"{url}/v2/health/live", timeout=_TIMEOUT_S) as answer:
        return bool(json.load(answer) == {"live": True})
    return False


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
