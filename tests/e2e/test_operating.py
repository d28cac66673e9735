"""`patchserve top` and `patchserve bench` on a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from e2e.in_process import RunningServer, running_server
from fakes.detector import FakeDetector
from fakes.gray import gray_png as gray
from fakes.programs import free_port
from fakes.terminal import command
from fakes.waiting import wait_until
from typer.testing import CliRunner

from patchserve_client import Client, NotFound, ServerStats
from patchserve_client.cli import app


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running, Client(running.address) as client:
        client.load_reference([gray(100), gray(102), gray(104)], "belt")
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def run(server: RunningServer, *arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--server", server.address, *map(str, arguments)])
    return result.exit_code, result.output


def counts(stats: ServerStats) -> dict[tuple[str, str], int]:
    return {(one.method, one.code): one.count for one in stats.calls}


def test_a_server_counts_calls_verdicts_failures_and_durations(client: Client) -> None:
    for _ in range(3):
        client.infer(gray(100), "belt")
    client.infer(gray(250), "belt")
    assert len(list(client.infer_stream([gray(100), b"no image"], "belt"))) == 2
    with pytest.raises(NotFound):
        client.infer(gray(100), "nobody")
    wait_until(lambda: counts(client.server_stats()).get(("InferStream", "OK")) == 1)
    stats = client.server_stats()
    assert counts(stats)["Infer", "OK"] == 4
    assert counts(stats)["Infer", "NOT_FOUND"] == 1
    assert {one.reason: one.count for one in stats.failures} == {"REFERENCE_NOT_FOUND": 1, "UNDECODABLE_IMAGE": 1}
    (belt,) = stats.references
    assert (belt.reference_id, belt.intact, belt.anomalous, belt.failed) == ("belt", 4, 1, 1)
    assert sum(stats.inspection.counts) == sum(stats.wait.counts) == 6
    assert stats.inspection.sum_s >= stats.wait.sum_s > 0
    assert (stats.processes, stats.streams_open, stats.images_in_progress) == (1, 0, 0)
    assert stats.calls_in_progress >= 1  # this one
    later = client.server_stats()
    assert later.process_id == stats.process_id
    assert later.uptime_s > stats.uptime_s


def test_what_is_in_progress_is_seen_while_it_is() -> None:
    detector = FakeDetector()
    with running_server(detector=detector) as server, Client(server.address) as client:
        client.load_reference(gray(100))
        detector.gate.clear()
        stream = client.infer_stream([gray(100)])
        try:
            reading = threading.Thread(target=lambda: list(stream))
            reading.start()
            wait_until(lambda: client.server_stats().images_in_progress == 1)
            stats = client.server_stats()
            assert (stats.streams_open, stats.loads_in_progress) == (1, 0)
        finally:
            detector.gate.set()
        reading.join()
        wait_until(lambda: client.server_stats().streams_open == 0)


def test_top_shows_what_a_server_does_and_over_http_there_is_the_same(server: RunningServer, client: Client) -> None:
    client.infer(gray(250), "belt")
    code, output = run(server, "top", "--once", "--interval", "50ms", "--output", "json")
    assert code == 0
    (sample,) = json.loads(output)
    assert (sample["state"], sample["backbone"]) == ("serving", "fake")
    assert sample["references"][0]["anomalous"] == 1
    document = requests.get(f"{server.http_url}/v1/server/stats", timeout=10).json()
    assert document["process_id"] == sample["process_id"]
    assert document["references"][0]["anomalous"] == "1"


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_bench_finds_a_limit_of_a_real_server(server: RunningServer, tmp_path: Path, options: list[str]) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(gray(100))
    quick = ["--step", "200ms", "--start-rate", 20, "--max-rate", 40, "--objective", "20s", "--reference", "belt"]
    code, output = run(server, "bench", image, *quick, *options, "--output", "json")
    assert code == 0
    document = json.loads(output)
    assert [(one["rate"], one["outcome"]) for one in document["steps"]] == [(20, "kept"), (40, "kept")]
    assert document["limit"]["completed"] == document["limit"]["sent"] > 0


def test_a_server_that_is_away_is_seen_again_when_it_is_back() -> None:
    port, interval = free_port(), ["--interval", "50ms", "--output", "jsonl"]
    arguments = command("top", f"localhost:{port}", *interval)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None

    def read_until(state: str) -> None:
        assert process.stdout is not None
        assert any(json.loads(line)["state"] == state for line in process.stdout)

    read_until("away")
    for _ in range(2):
        with running_server(port=port):
            read_until("serving")
        read_until("away")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
