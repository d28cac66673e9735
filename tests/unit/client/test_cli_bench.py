"""`patchserve bench` against a scripted server."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.terminal import Run, command, rows

QUICK = ["--step", "100ms", "--start-rate", 40, "--max-rate", 80, "--objective", "20s"]


@pytest.mark.parametrize("options", [[], ["--stream"], ["--arrivals", "fixed", "--channels", 3]])
def test_the_steps_and_the_limit_are_printed(run: Run, folder: Path, options: list[object]) -> None:
    code, stdout, _ = run("bench", folder, *QUICK, *options)
    assert code == 0
    server, titles, first, second, *_, limit, note = [row for row in rows(stdout) if row]
    assert server[0] == "fake,"
    assert titles[:2] == ["rate/s", "done/s"]
    assert (first[0], second[0], second[-1]) == ("40", "80", "ok")
    assert " ".join(limit).partition("images/s with a p99 of at most 20000 ms")[1]
    assert " ".join(note).startswith("No step broke")


def test_json_has_everything_and_lines_the_steps(run: Run, folder: Path) -> None:
    document = json.loads(run("bench", folder / "a.png", *QUICK, "--output", "json")[1])
    assert [one["rate"] for one in document["steps"]] == [40, 80]
    assert document["limit"] == document["steps"][1]
    assert document["plan"]["reference_id"] == "default"
    assert document["server"]["backbone"] == "fake"
    for one in document["steps"]:
        assert one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] <= one["max_ms"]
        assert one["completed"] == one["sent"]
    lines = run("bench", folder / "a.png", *QUICK, "--output", "jsonl")[1].splitlines()
    assert [json.loads(line)["rate"] for line in lines] == [40, 80]


def test_each_channel_has_a_connection_of_its_own(run: Run, fake: FakeServer, folder: Path) -> None:
    run("bench", folder / "a.png", *QUICK, "--channels", 3)
    assert len(fake.peers) == 3


def test_a_server_that_refuses_breaks_the_objective_and_says_why(run: Run, fake: FakeServer, folder: Path) -> None:
    full = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", "QUEUE_FULL")
    fake.fail_after("Infer", 60, full)  # the calls of the warm-up come first
    code, stdout, _ = run("bench", folder / "a.png", "--step", "50ms", "--start-rate", 60, "--objective", "20s")
    assert code == 1
    assert "QUEUE_FULL" in stdout
    assert "No rate kept a p99 of at most 20000 ms." in stdout


def test_images_that_the_server_does_not_inspect_at_all_are_an_error(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, stdout, stderr = run("bench", tmp_path / "bad.png", *QUICK)
    assert code == 1
    assert "UNDECODABLE_IMAGE" in stderr
    assert "rate/s" not in stdout


def test_a_plot_is_drawn(run: Run, folder: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    assert run("bench", folder / "a.png", *QUICK, "--plot", plot)[0] == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    code, _, stderr = run("bench", folder / "a.png", *QUICK, "--plot", tmp_path / "plot.svg")
    assert (code, ".png" in stderr) == (2, True)


def test_ctrl_c_prints_what_was_measured(fake: FakeServer, folder: Path) -> None:
    arguments = command("bench", folder / "a.png", "--server", fake.address, "--step", "50ms", "--start-rate", 20)
    process = subprocess.Popen(
        [*arguments, "--objective", "20s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    begun = [process.stdout.readline() for _ in range(3)]  # the server, the titles, the first step
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert begun[2].split()[0] == "20"
    assert "images/s with a p99 of at most 20000 ms" in stdout
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "Interrupted.")
