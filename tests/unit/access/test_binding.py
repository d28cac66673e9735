"""The sockets on which the HTTP face listens."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from patchserve_server.access.binding import bind


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connections_send_each_part_of_a_response_at_once(host: str) -> None:
    sockets = bind(host, 0)
    assert sockets
    for listening in sockets:
        with closing(listening), socket.create_connection(listening.getsockname()[:2]):
            connection, _ = listening.accept()
            with closing(connection):
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
