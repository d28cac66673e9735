"""Where the log of a server's process goes, how it looks there, and what SIGHUP changes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from e2e.harness import STOP_TIMEOUT_S, ServerProcess, Stub, addresses_in, connect, until_stopped
from e2e.processes import PROGRAM
from fakes.waiting import wait_until

from patchserve.v1 import reference_pb2, server_info_pb2

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[info +\] GetServerInfo OK .*method=GetServerInfo.*")


class FakeServer(ServerProcess):
    """One process with a FakeDetector."""

    def __init__(self, *flags: str) -> None:
        super().__init__(*flags, program=PROGRAM)


def call(stub: Stub) -> None:
    stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())


def fail(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError):
        stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="nobody"))


def test_lines_are_json_and_sighup_changes_which_ones_there_are(tmp_path: Path) -> None:
    configuration = tmp_path / "patchserve.toml"
    configuration.write_text('log_calls = "all"\n')
    with until_stopped(FakeServer("--config", str(configuration))) as server, connect(server.address) as stub:
        call(stub)
        wait_until(lambda: "GetServerInfo OK" in server.log)
        configuration.write_text('log_calls = "failed"\n')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "log_calls is" in server.log)
        before = server.log.count("GetServerInfo OK")
        call(stub)
        fail(stub)
        wait_until(lambda: "GetReference NOT_FOUND" in server.log)
        assert server.log.count("GetServerInfo OK") == before
        configuration.write_text('log_level = "debug"\n')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "log_level is" in server.log)
        call(stub)
        wait_until(lambda: server.log.count("GetServerInfo OK") == before + 1)
    assert all(json.loads(line)["event"] for line in server.log.splitlines())


@pytest.mark.parametrize("colors", [True, False])
def test_on_a_terminal_lines_are_for_people(monkeypatch: pytest.MonkeyPatch, colors: bool) -> None:
    monkeypatch.setenv("NO_COLOR", "" if colors else "1")
    with a_terminal() as (text, slave):
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", "--drain-delay-s", "0"], stdout=subprocess.PIPE, stderr=slave, text=True
        )
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            with connect(addresses_in(ready)[0]) as stub:
                call(stub)
            wait_until(lambda: "GetServerInfo" in "".join(text))
        finally:
            process.terminate()
            assert process.wait(STOP_TIMEOUT_S) == 0
            process.stdout.close()
        wait_until(lambda: "Stopped" in "".join(text))
    seen = "".join(text)
    assert ("\x1b[" in seen) == colors
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
    assert [line for line in lines if LINE.fullmatch(line)]
    assert "{" not in seen


@contextmanager
def a_terminal() -> Iterator[tuple[list[str], int]]:
    """The text that appears on a terminal, as it comes, and the end of it for a program."""
    master, slave = pty.openpty()
    text: list[str] = []

    def read() -> None:
        with suppress(OSError):  # every program has closed it
            while data := os.read(master, 65536):
                text.append(data.decode())

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    yield text, slave
    os.close(slave)
    reading.join(10)
    os.close(master)
