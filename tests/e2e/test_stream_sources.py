"""`patchserve stream` and `reference capture` with a real server and real sources."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from e2e.harness import CARDS, ServerProcess
from fakes.images import card, encoded
from fakes.mjpeg_camera import Connection, MjpegCamera, mjpeg_camera
from PIL import Image

from patchserve.v1.reference_pb2 import Reference

PATCHSERVE = str(Path(sys.executable).parent / "patchserve")


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    pytest.importorskip("cv2", reason="the extra `video` is not installed")
    with mjpeg_camera() as made:
        yield made


def patchserve(server: ServerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [PATCHSERVE, *map(str, arguments), "--server", server.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def test_a_camera_is_captured_lost_and_inspected(server: ServerProcess, camera: MjpegCamera, tmp_path: Path) -> None:
    captured = patchserve(
        server, "reference", "capture", camera.address, "--count", 10, "--every", "20ms", "--id", "belt"
    )
    assert captured.returncode == 0, captured.stderr
    assert captured.stdout.startswith("Loaded belt: 10 images")
    camera.play(Connection(4), Connection(is_refused=True), Connection(3, freezes=True), Connection())
    results = tmp_path / "results.csv"
    options = ["--limit", 16, "--frozen-after", "1s", "--results", results, "--output=jsonl"]
    streamed = patchserve(server, "stream", camera.address, "--reference", "belt", *options)
    assert (streamed.returncode, streamed.stderr) == (0, "")
    events = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert [event["verdict"] for event in events if event["event"] == "frame"] == ["intact"] * 16
    kinds = [event["kind"] for event in events if event["event"] == "warning"]
    assert kinds[:4] == ["reconnecting", "reconnected"] * 2
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    lags_s = [seconds_between(row["capture_time"], row["time"]) for row in rows]
    assert all(0 <= lag_s < 60 for lag_s in lags_s)


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


@pytest.mark.usefixtures("cards")
def test_a_camera_that_is_gone_for_good_ends_with_1(server: ServerProcess, camera: MjpegCamera) -> None:
    camera.play(Connection(5), Connection(is_refused=True))
    done = patchserve(server, "stream", camera.address, "--reference", CARDS, "--reconnect-for", "1s")
    assert done.returncode == 1
    assert " frames in" in done.stdout
    assert done.stderr.splitlines()[-1].endswith("cannot be opened and did not come back for 1 s.")


def test_a_watched_folder_saves_its_anomalies(server: ServerProcess, cards: Reference, tmp_path: Path) -> None:
    pytest.importorskip("watchdog", reason="the extra `watch` is not installed")
    folder, saved = tmp_path / "new", tmp_path / "saved"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(encoded(card(20)))
    options = ["--watch", "--save-anomalies", saved, "--out", tmp_path / "out", "--server", server.address]
    command = [PATCHSERVE, "stream", str(folder), "--reference", cards.reference_id, *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    rows = [process.stdout.readline(), process.stdout.readline()]
    with (folder / "1.jpg").open("wb") as file:
        scratched = encoded(card(21, scratched=True))
        file.write(scratched[:2000])
        file.flush()
        time.sleep(0.1)  # the process may look at the half file now; the outcome must not depend on it
        file.write(scratched[2000:])
    rows.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert [row.split()[1:3] for row in rows[1:]] == [["0.jpg", "intact"], ["1.jpg", "anomalous"]]
    assert "2 frames in" in stdout
    (anomaly,) = saved.iterdir()
    assert sorted(path.name for path in anomaly.iterdir()) == ["original.jpg", "overlay.png", "result.json"]
    assert (anomaly / "original.jpg").read_bytes() == scratched
    with Image.open(anomaly / "overlay.png") as overlay:
        assert overlay.width == 360
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0_overlay.png", "1_overlay.png"]
