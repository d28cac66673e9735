"""`--save-anomalies DIR` of `infer` and `stream`."""

from __future__ import annotations

import errno
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes.disk import FailingDisk, failing
from fakes.fake_server import FakeServer
from fakes.responses import inspected, png
from fakes.terminal import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve.v1 import inference_pb2
from patchserve_client import InferenceResult
from patchserve_client._results import inference_result
from patchserve_client.cli._overlays import OverlayStyle
from patchserve_client.cli._saved_anomalies import SavedAnomalies, SavedAnomaliesLimits
from patchserve_client.cli._verdict_options import VerdictOptions

START = datetime(2025, 1, 2, tzinfo=UTC)
FILES = ["original.png", "overlay.png", "result.json"]


def result(color: str) -> InferenceResult:
    response = inspected("belt", png(color), inference_pb2.OutputOptions(overlay=True))
    assert isinstance(response, inference_pb2.InferResponse)
    return inference_result(response)


ANOMALOUS, INTACT = result("red"), result("green")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def saving(
    folder: Path, max_count: int = 100, max_age: timedelta = timedelta(days=1), clock: Clock | None = None
) -> SavedAnomalies:
    limits = SavedAnomaliesLimits(max_count, max_age)
    return SavedAnomalies(folder, limits, OverlayStyle(), VerdictOptions(), clock or Clock())


def names(folder: Path) -> list[str]:
    """The names of the saved anomalies, the oldest first."""
    return [path.name.partition("_")[2] for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("kind", ["infer", "stream"])
def test_each_anomalous_image_is_saved_with_its_overlay_and_result(
    run: Run, fake: FakeServer, folder: Path, tmp_path: Path, kind: str
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "d.png").write_bytes(png("red", (50, 40)))
    code, stdout, stderr = run(kind, folder, "--save-anomalies", tmp_path / "new" / "saved")
    assert (code, stderr) == (0, "")
    saved = {path.name.rpartition("_")[2]: path for path in (tmp_path / "new" / "saved").iterdir()}  # in any order
    first, second = saved["b.png"], saved["d.png"]
    assert len(saved) == 2
    assert sorted(file.name for file in first.iterdir()) == FILES
    assert (first / "original.png").read_bytes() == (folder / "b.png").read_bytes()
    assert (second / "original.png").read_bytes() == (folder / "sub" / "d.png").read_bytes()
    document = json.loads((first / "result.json").read_text())
    assert (document["verdict"], document["ratio"]) == ("anomalous", 3.0)
    assert document["name"].endswith("b.png")
    with Image.open(first / "overlay.png") as overlay:
        assert overlay.width >= 32
    sent = fake.requests["InferStream" if kind == "stream" else "Infer"][0]
    assert (sent.output.overlay, sent.output.heatmap_scale) == (True, inference_pb2.HEATMAP_SCALE_CALIBRATED)
    assert "_overlay" not in stdout


def test_the_frames_of_a_video_are_saved_as_they_were_sent(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    writer.release()
    code, _, _ = run("stream", tmp_path / "in.avi", "--save-anomalies", tmp_path / "saved")
    assert code == 0
    (saved,) = (tmp_path / "saved").iterdir()
    assert (saved / "original.jpg").read_bytes() == fake.requests["frame"][0].image
    assert json.loads((saved / "result.json").read_text())["capture_time"]


def test_the_oldest_are_deleted_and_what_is_not_ours_stays(run: Run, folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for number in range(5):
        (folder / "b.png").rename(folder / "kept.png")
        (folder / f"b{number}.png").write_bytes(png("red"))
        assert run("infer", folder / f"b{number}.png", "--save-anomalies", saved, "--save-max-count", 2)[0] == 0
        (folder / "kept.png").rename(folder / "b.png")
        if number == 0:
            (saved / "mine").mkdir()
            (saved / "notes.txt").write_text("mine")
            (next(saved.glob("*b0*")) / "comment.txt").write_text("mine")
    left = sorted(path.name.partition("_")[2] for path in saved.iterdir() if path.is_dir() and path.name != "mine")
    assert [name.rpartition("_")[2] for name in left] == ["b0.png", "b3.png", "b4.png"]
    assert [file.name for file in next(saved.glob("*b0*")).iterdir()] == ["comment.txt"]
    assert (saved / "mine").is_dir()
    assert (saved / "notes.txt").read_text() == "mine"


@settings(deadline=None, max_examples=25)
@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["anomalous", "intact", "restart"])), max_size=25),
    max_count=st.integers(1, 4),
)
def test_number_and_age_are_bounded_after_every_image(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]], max_count: int
) -> None:
    folder, clock = tmp_path_factory.mktemp("saved"), Clock()
    max_age = timedelta(seconds=60)
    saved = saving(folder, max_count, max_age, clock)
    added: list[tuple[datetime, str]] = []
    for number, (pause_s, kind) in enumerate(steps):
        clock.now += timedelta(seconds=pause_s, microseconds=1)
        if kind == "restart":
            saved = saving(folder, max_count, max_age, clock)
            continue
        saved.add(f"{number}.png", png(), ANOMALOUS if kind == "anomalous" else INTACT)
        if kind == "anomalous":
            added.append((clock.now, f"{number}.png"))
        young = [name for time, name in added if clock.now - time <= max_age]
        assert names(folder) == young[-max_count:]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/a/b", "..", "a\nb", "ä" * 300, "", "x\x00y"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with saving(tmp_path / "saved") as saved:
        saved.add(name, png("red"), ANOMALOUS)
    (folder,) = (tmp_path / "saved").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert json.loads((folder / "result.json").read_text())["name"] == name
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_disk_that_fails_at_any_step_leaves_whole_anomalies_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(11):
        folder = tmp_path / str(step)
        saved = saving(folder)
        disk = FailingDisk(step, errno.ENOSPC)
        with monkeypatch.context() as patch:
            for function in ("os.mkdir", "os.rename", "io.open"):
                failing(patch, function, disk)
            saved.add("a.png", png("red"), ANOMALOUS)
            saved.add("b.png", png("red"), ANOMALOUS)
        for left in folder.iterdir():
            assert sorted(file.name for file in left.iterdir()) == FILES
        assert len(list(folder.iterdir())) == (1 if disk.reached else 2)
        if disk.reached:
            with pytest.raises(OSError, match="1 anomaly could not be written"):
                saved.__exit__(None, None, None)
    assert not disk.reached


def test_a_disk_that_is_full_does_not_end_the_inspection(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "d.png").write_bytes(png("red"))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    code, stdout, stderr = run("stream", folder, "--save-anomalies", tmp_path / "saved")
    assert code == 1
    assert "4 frames in" in stdout
    assert stderr.count("No space left on device") == 1
    assert stderr.endswith(f"Error: 2 anomalies could not be written to {tmp_path / 'saved'}.\n")
    assert list((tmp_path / "saved").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--save-anomalies", "{}/a.png"], (2, "is a file")),
        (["--save-anomalies", "/proc/self/saved"], (1, "/proc/self/saved")),
        (["--save-max-count", 5], (2, "need --save-anomalies")),
        (["--save-max-age", "1d"], (2, "need --save-anomalies")),
        (["--save-anomalies", "{}/saved", "--save-max-age", "0"], (2, "longer than 0")),
        (["--save-anomalies", "{}/saved", "--save-max-age", "1week"], (2, "such as 2s")),
        (["--save-anomalies", "{}/saved", "--save-max-count", 0], (2, "1")),
    ],
)
def test_what_cannot_be_used_is_an_error_before_any_work(
    run: Run, fake: FakeServer, folder: Path, arguments: list[object], expected: tuple[int, str]
) -> None:
    code, says = expected
    for command in ("infer", "stream"):
        formatted = [str(argument).format(folder) for argument in arguments]
        exit_code, stdout, stderr = run(command, folder, *formatted)
        assert (exit_code, stdout) == (code, "")
        assert says in stderr
    assert not fake.requests


def test_what_a_killed_process_left_unfinished_is_cleaned_up(tmp_path: Path) -> None:
    old = tmp_path / ".unfinished-20200101T000000.000000Z_a.png"
    old.mkdir()
    (old / "result.json").write_text("{")
    clock = Clock()
    clock.now = datetime.now(UTC) + timedelta(days=1)
    saving(tmp_path, clock=clock)
    assert list(tmp_path.iterdir()) == []
