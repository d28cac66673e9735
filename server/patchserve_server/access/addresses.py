"""Addresses to listen on: TCP and Unix sockets."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from patchserve_server.domain.errors import StartupError

_UNIX: Final = ("unix:", "unix-abstract:")
_ONLY_THE_OWNER: Final = 0o177  # what the umask takes away


def listening_address(host: str, port: int) -> str:
    """The address as gRPC wants it: HOST:PORT, [IPV6]:PORT, or a Unix socket as it is."""
    if host.startswith(_UNIX):
        return host
    bare = _without_brackets(host)
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def is_unix_socket(address: str) -> bool:
    return address.startswith(_UNIX)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host. A name is resolved; False if that fails."""
    if host.startswith(_UNIX):
        return True
    host = _without_brackets(host)
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in resolved]
    return bool(addresses) and all(address.is_loopback for address in addresses)


@contextmanager
def private_socket_file(address: str) -> Iterator[None]:
    """If the address is a Unix socket, its file is created inside so that only the server's user can open it.

    gRPC removes the file of a server that was killed, and its own when it stops. It would also remove that of a server
    that runs.

    Raises:
        StartupError: another server listens there, or the socket would have no file and so no permissions.
    """
    if not is_unix_socket(address):
        yield
        return
    scheme, _, path = address.partition(":")
    path = path.removeprefix("//")
    if scheme != "unix" or not path:
        raise StartupError(f"Every user of this machine could open {address}. Name a file instead: --host unix:PATH.")
    if _answers(path):
        raise StartupError(f"Another server listens on {address}. Choose another with --host.")
    previous = os.umask(_ONLY_THE_OWNER)
    try:
        yield
    finally:
        os.umask(previous)


def _answers(path: str) -> bool:
    if sys.platform == "win32":
        raise StartupError("There are no Unix sockets here. Choose an address and a port with --host and --port.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
