"""SIGHUP: settings are read again, and what may change at run time changes, in every process of the server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, load, refusal, until_stopped
from e2e.processes import SeveralProcesses, server_of_processes
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.server_info_pb2 import GetServerInfoRequest, GetServerInfoResponse

FIRST = "max_pending_images = 8\nmax_in_flight = 4\ndefault_timeout_s = 20.0\nlog_level = 'info'\n"
THEN = "max_pending_images = 4\nmax_in_flight = 2\ndefault_timeout_s = 0.2\nlog_level = 'info'\nmax_calls = 99\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "patchserve.toml"
    path.write_text(FIRST)
    return path


@contextmanager
def running(file: Path, *, fronts: int, score_s: float = 0.0) -> Iterator[tuple[SeveralProcesses, list[Stub]]]:
    """A server, and a stub for each of its fronts."""
    flags = ("--config", str(file), "--max-calls", "50")
    with until_stopped(SeveralProcesses(*flags, fronts=fronts, score_s=score_s)) as server, ExitStack() as stack:
        if fronts == 1:
            yield server, [stack.enter_context(connect(server.address))]
        else:
            yield server, [stack.enter_context(server.stub_at(front)) for front in range(fronts)]


def info(stub: Stub) -> GetServerInfoResponse:
    return stub.GetServerInfo(GetServerInfoRequest())


def limits(stub: Stub) -> tuple[int, int, float]:
    found = info(stub).limits
    return found.max_pending_images, found.max_in_flight, found.default_timeout_s


def reload(server: SeveralProcesses, says: str) -> str:
    """Sends SIGHUP; returns the message of the log with these words."""
    before = len(server.log)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: says in server.log[before:])
    line = next(line for line in server.log[before:].splitlines() if says in line)
    return str(json.loads(line)["event"])


@pytest.mark.parametrize("fronts", [1, 2])
def test_limits_change_for_new_calls_and_a_broken_file_changes_nothing(file: Path, fronts: int) -> None:
    with running(file, fronts=fronts, score_s=1.0) as (server, stubs):
        load(stubs[0], "default", 1)
        assert [limits(stub) for stub in stubs] == [(8, 4, 20.0)] * fronts
        assert "max_pending_images" not in server.log

        file.write_text(THEN)
        line = reload(server, "Settings read again")
        assert line.endswith(
            "max_pending_images is 4 (was 8), max_in_flight is 2 (was 4), default_timeout_s is 0.2 (was 20.0)"
        ), "the flag --max-calls wins over the file"
        for stub in stubs:
            wait_until(lambda: limits(stub) == (4, 2, 0.2))  # noqa: B023
        with pytest.raises(grpc.RpcError) as caught:
            stubs[-1].Infer(InferRequest(image=gray_png(100)))  # without a deadline of its own
        assert refusal(caught.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED

        file.write_text(FIRST + "max_pending_images = \nprot = 1\n")
        line = reload(server, "cannot be read again")
        assert "stay as they are: " in line
        assert f"{file}, line 5: it is no valid TOML" in line
        assert [limits(stub) for stub in stubs] == [(4, 2, 0.2)] * fronts
        assert reload(server, "Read the files again") or fronts > 1


def test_what_needs_a_restart_is_said_and_left(file: Path) -> None:
    with running(file, fronts=1) as (server, _):
        file.write_text(FIRST.replace("'info'", "'warning'") + "threads = 63\nport = 50052\n")
        line = reload(server, "Settings read again")
        assert 'log_level is "warning" (was "info")' in line
        assert "threads (is " in line
        assert "would be 63)" in line
        assert "port" not in line.partition("Only a restart")[2], "a flag sets it"
        file.write_text(FIRST.replace("'info'", "'debug'"))
        assert 'log_level is "debug" (was "warning")' in reload(server, "Settings read again")


def test_a_front_that_is_started_again_has_the_settings_of_now(file: Path) -> None:
    with running(file, fronts=2) as (server, stubs):
        file.write_text(THEN)
        reload(server, "Settings read again")
        wait_until(lambda: limits(stubs[0]) == (4, 2, 0.2))
        pid = server.kill("front 0")
        wait_until(lambda: server.pid_of("front 0") not in (0, pid))
        with server.stub_at(0) as again:
            assert limits(again) == (4, 2, 0.2)


def test_the_doctor_sees_a_running_server(tmp_path: Path) -> None:
    with server_of_processes("--store", str(tmp_path / "references"), "--http-port", "0") as server:
        ports = ("--port", server.address.rpartition(":")[2], "--http-port", server.http_url.rpartition(":")[2])
        command = (sys.executable, "-c", "from patchserve_server.cli import main; main()", "doctor", "--output", "json")
        flags = ("--store", str(tmp_path / "references"), "--backbone", "efficientnet_lite2", *ports)
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["subject"]: each["message"] for each in json.loads(done.stdout)["findings"]}
    assert found["port"].endswith("a patchserve runs, and is SERVING")
    assert found["http port"].endswith("a patchserve runs")
    assert found["store"].endswith("in use by a running server")
