"""A server on a Unix socket: no TLS needed, only for its user, and gone when it stops."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

from e2e.harness import ServerProcess, connect, server_process

from patchserve.v1 import server_info_pb2
from patchserve_client import Client


def test_a_unix_socket_serves_its_user_and_is_removed_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "patchserve.sock"
    with server_process("--host", f"unix:{file}") as server:
        assert server.address == f"unix:{file}"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with connect(server.address) as stub:
            assert stub.GetServerInfo(server_info_pb2.GetServerInfoRequest()).backbone == "efficientnet_lite2"
        with Client(server.address) as client:
            assert client.list_references() is not None
        second = ServerProcess("--host", f"unix:{file}")
        assert second.wait() == 1
        assert f"Another server listens on unix:{file}" in second.log
        with connect(server.address) as stub:  # and it did not take the socket away
            stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
    assert not file.exists()


def test_the_socket_of_a_server_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "patchserve.sock"
    killed = ServerProcess("--host", f"unix:{file}")
    killed.wait_ready()
    killed.stop(signal.SIGKILL)
    assert file.exists()
    with server_process("--host", f"unix:{file}") as server, connect(server.address) as stub:
        stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())


def test_a_path_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("precious")
    for path in (occupied, tmp_path / "missing" / "socket", tmp_path / ("x" * 200)):
        server = ServerProcess("--host", f"unix:{path}")
        assert server.wait() == 1
        assert f"Cannot listen on unix:{path}: name a path of at most 107 characters" in server.log
    assert occupied.read_text() == "precious"
