"""Ports that several processes of this server listen on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from patchserve_server.access.addresses import listening_address
from patchserve_server.domain.errors import StartupError


def reserve_port(host: str, port: int, flag: str, resources: ExitStack) -> int:
    """Reserves a port, 0: a free one, for the children of this process until `resources` are closed.

    Only programs of the same user can listen there too, and only if they ask for it as the children do.

    Raises:
        StartupError: another program uses it, or this machine has no such address.
    """
    try:
        with ExitStack() as trial:  # as a server that is alone: so a port is never shared with another server
            port = _bind_all(host, port, trial, is_shared=False)
        return _bind_all(host, port, resources, is_shared=True)
    except (OSError, UnicodeError) as error:
        cause = "this machine does not have it, or another server uses the port. Choose another with --host and"
        raise StartupError(f"Cannot listen on {listening_address(host, port)}: {cause} {flag}.") from error


def _bind_all(host: str, port: int, resources: ExitStack, *, is_shared: bool) -> int:
    bare = host.strip("[]")
    found = socket.getaddrinfo(bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in dict.fromkeys(found):
        bound = resources.enter_context(socket.socket(family, socket.SOCK_STREAM))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if is_shared else socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bare != "::"))
        bound.bind((*address[:1], port, *address[2:]))
        port = bound.getsockname()[1]
    return port
