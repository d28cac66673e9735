"""`patchserve top` against scripted servers, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.programs import free_port
from fakes.responses import reference
from fakes.stats import server_stats
from fakes.terminal import Run, command, rows

from patchserve.v1.server_info_pb2 import StoreInfo

ONCE = ["top", "--once", "--interval", "20ms"]


@pytest.fixture(autouse=True)
def busy(fake: FakeServer) -> None:
    """Each answer of the server has ten images more than the one before."""
    fake.references["line"] = reference("line", 3)
    fake.stats.clear()
    fake.stats.extend(server_stats(10 * number, uptime_s=1 + number) for number in range(100))


def test_once_prints_servers_and_references(run: Run, fake: FakeServer) -> None:
    code, stdout, stderr = run(*ONCE)
    assert (code, stderr) == (0, "")
    titles, server, failures, reference_titles, line = [row for row in rows(stdout) if row]
    assert titles[:3] == ["server", "state", "images/s"]
    assert server[:4] == [fake.address, "serving", "10", "3/64"]
    assert " ".join(failures) == f"{fake.address}: QUEUE_FULL 2/s"
    assert reference_titles[0] == "reference"
    assert line[:5] == ["line", "10", "20.0", "%", "2/10"]


def test_a_server_that_is_away_is_in_the_output_and_in_the_exit_code(run: Run, fake: FakeServer) -> None:
    nobody = f"localhost:{free_port()}"
    code, stdout, _ = run(*ONCE, fake.address, nobody, "--output", "json")
    here, away = json.loads(stdout)
    assert (here["server"], here["state"], here["images_per_s"]) == (fake.address, "serving", 10)
    assert (away["server"], away["state"], away["images_per_s"]) == (nobody, "away", None)
    assert set(here) == set(away)
    assert here["references"][0]["reference_id"] == "line"
    assert code == 1
    assert f"{nobody}: away: No server answers" in run(*ONCE, fake.address, nobody)[1]


def test_a_store_that_is_away_is_said_below_the_table(run: Run, fake: FakeServer) -> None:
    fake.store = StoreInfo(kind="s3", url="s3://bucket/prefix", shared=True, synced_age_s=31.2, reachable=False)
    code, stdout, _ = run(*ONCE)
    assert code == 0  # it serves what it holds
    assert f"{fake.address}: cannot reach its store s3://bucket/prefix, in step with it 31 s ago" in stdout
    assert json.loads(run(*ONCE, "--output", "json")[1])[0]["store_reachable"] is False


def test_lines_come_until_ctrl_c(fake: FakeServer) -> None:
    arguments = command("top", "--server", fake.address, "--interval", "50ms", "--output", "jsonl")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    first, second, third = (json.loads(process.stdout.readline()) for _ in range(3))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert first["images_per_s"] is None  # one answer has no rate
    assert second["images_per_s"] == third["images_per_s"] == 10


def test_on_a_terminal_the_screen_is_left_as_it_was(fake: FakeServer) -> None:
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        command("top", fake.address, "--interval", "50ms"),
        stdout=writing,
        stderr=writing,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
    )
    os.close(writing)
    output = b""
    is_ended = False
    while True:
        try:
            data = os.read(reading, 65536)
        except OSError:  # Linux: the other side is closed
            break
        output += data
        if b"line" in output and not is_ended:
            is_ended = True
            process.send_signal(signal.SIGINT)
    os.close(reading)
    assert process.wait(60) == 0
    enter, leave = b"\x1b[?1049h", b"\x1b[?1049l"
    assert output.count(enter) == output.count(leave) == 1
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")  # the cursor is visible again
    after = output[output.index(leave) :]
    assert b"Traceback" not in after
    assert b"images/s" in output


def test_servers_are_named_like_any_other_address(run: Run, tmp_path: Path) -> None:
    code, _, stderr = run(*ONCE, "localhost:notaport")
    assert code == 2
    assert "notaport" in stderr
