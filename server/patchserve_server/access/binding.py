"""Where servers of HTTP listen: TCP only."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from patchserve_server.access.addresses import is_unix_socket, listening_address
from patchserve_server.domain.errors import StartupError

UNSENT_BYTES: Final = 128 * 2**10  # of a connection: what the system takes though its client does not read
BACKLOG: Final = 1024  # connections that wait; of more, the system drops some, and they try again after a second
_ANY_IPV6: Final = "::"
_CAUSES: Final = {
    errno.EADDRINUSE: "the port is in use already. Choose another with {port_flag}.",
    errno.EADDRNOTAVAIL: "this machine does not have this address. Choose another with {host_flag}.",
    errno.EACCES: "the system does not allow this port. Choose one above 1023 with {port_flag}.",
}


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a port is for, and the flags that set it, for error messages."""

    what: str
    host_flag: str
    port_flag: str


HTTP: Final = Purpose("HTTP", "--host", "--http-port")


def bind(host: str, port: int, *, purpose: Purpose = HTTP, shares_port: bool = False) -> list[socket.socket]:
    """Sockets that listen on every address of the host, with one port; 0 picks a free one.

    Args:
        host, port: where.
        purpose: of the port.
        shares_port: with a process that has reserved the port for this one.

    Raises:
        StartupError: one cannot be bound. None stays bound then.
    """
    if is_unix_socket(host):
        flag = f"{purpose.host_flag} 127.0.0.1"
        raise StartupError(f"{purpose.port_flag} needs an address with ports, such as {flag}; {host} has none.")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    with ExitStack() as on_failure:
        sockets: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, *_, address in dict.fromkeys(found):
                bound = socket.create_server(
                    (*address[:1], port, *address[2:]),
                    family=family,
                    backlog=BACKLOG,
                    # As gRPC does: :: is every address, of IPv4 too. A port that another program uses is never shared.
                    reuse_port=shares_port,
                    dualstack_ipv6=bare == _ANY_IPV6 and socket.has_dualstack_ipv6(),
                )
                on_failure.callback(bound.close)
                bound.setblocking(False)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
                    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
                # Connections inherit it. Else a short response waits 40 ms for the caller to confirm its head.
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(bound)
                port = bound.getsockname()[1]
        except (OSError, UnicodeError) as error:
            cause = _CAUSES.get(getattr(error, "errno", 0) or 0, _CAUSES[errno.EADDRNOTAVAIL])
            cause = cause.format(host_flag=purpose.host_flag, port_flag=purpose.port_flag)
            where = listening_address(host, port)
            raise StartupError(f"Cannot listen for {purpose.what} on {where}: {cause}") from error
        on_failure.pop_all()
        return sockets
