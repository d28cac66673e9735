"""The progress of a load on the command line, against a scripted server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png
from fakes.terminal import command, on_a_terminal

from patchserve.v1 import reference_pb2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A labeled dataset. train/good is loaded."""
    for name in ("train/good/a", "train/good/b", "test/good/c"):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return tmp_path / "data"


def load(reference_id: str, stage: str, done: int, total: int, **fields: Any) -> reference_pb2.Load:
    number = reference_pb2.LoadStage.Value(f"LOAD_STAGE_{stage}")
    message = reference_pb2.Load(reference_id=reference_id, stage=number, steps_done=done, steps_total=total, **fields)
    message.start_time.FromJsonString("2025-01-02T03:04:05Z")
    return message


def test_a_terminal_shows_the_progress_of_the_newest_load_of_the_reference(fake: FakeServer, data: Path) -> None:
    fake.loads = [
        load("default", "EMBED", 11, 12),
        load("default", "CORESET", 40, 90),
        load("belt", "CALIBRATE", 71, 72),
    ]
    fake.polls_before_ready = 2  # the load ends after the first progress was shown
    shown = on_a_terminal("reference", "load", data / "train/good", "--server", fake.address)
    assert "Selecting patches" in shown
    assert "40/90" in shown
    assert "11/12" not in shown
    assert "71/72" not in shown
    assert "Loaded default: 2 images" in shown


def test_received_images_are_counted_against_the_files(fake: FakeServer, data: Path) -> None:
    fake.loads, fake.polls_before_ready = [load("default", "RECEIVE", 1, 0, image_count=1)], 2
    shown = on_a_terminal("reference", "load", data / "train/good", "--server", fake.address)
    assert "Receiving" in shown
    assert "1/2" in shown


def test_evaluate_shows_the_progress_of_its_load_too(fake: FakeServer, data: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
    fake.loads, fake.polls_before_ready = [load("evaluation", "CALIBRATE", 3, 17)], 2
    shown = on_a_terminal("evaluate", data, "--server", fake.address)
    assert "Calibrating" in shown
    assert "3/17" in shown


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL])
def test_a_load_goes_on_if_its_progress_is_not_available(fake: FakeServer, data: Path, code: grpc.StatusCode) -> None:
    fake.fail("ListLoads", Fault(code, "Not available.", "SECRET"), times=2)
    fake.loads, fake.polls_before_ready = [load("default", "SAVE", 0, 1)], 4
    shown = on_a_terminal("reference", "load", data / "train/good", "--server", fake.address)
    assert "Not available" not in shown
    assert "Saving" in shown
    assert "Loaded default: 2 images" in shown


def test_in_a_pipe_the_progress_is_not_requested(fake: FakeServer, data: Path) -> None:
    fake.polls_before_ready = 1  # the load would end with the first request for its progress
    arguments = command("reference", "load", data / "train/good", "--server", fake.address, "--timeout", 2)
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "DEADLINE_EXCEEDED" in ended.stderr
    assert not fake.requests["ListLoads"]


def test_active_loads_are_listed(fake: FakeServer) -> None:
    def listed(*arguments: str) -> str:
        asked = command("reference", "loads", "--server", fake.address, *arguments)
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    assert listed() == "There are no active loads.\n"
    assert json.loads(listed("--output=json")) == []
    fake.loads = [load("belt", "CORESET", 40, 90, image_count=12), load("box", "RECEIVE", 3, 0, image_count=3)]
    assert [line.split() for line in listed().splitlines()] == [
        ["id", "stage", "steps", "images", "started"],
        ["belt", "coreset", "40/90", "12", "2025-01-02", "03:04:05Z"],
        ["box", "receive", "3/?", "3", "2025-01-02", "03:04:05Z"],
    ]
    first, _ = json.loads(listed("--output=json"))
    assert first == {
        "reference_id": "belt",
        "stage": "coreset",
        "steps_done": 40,
        "steps_total": 90,
        "start_time": "2025-01-02T03:04:05+00:00",
        "image_count": 12,
    }
