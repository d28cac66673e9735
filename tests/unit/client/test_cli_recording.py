"""Video files: inspected by `stream`, and as sources of reference images."""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import decoded_image
from fakes.terminal import Run, on_a_terminal, rows
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client.cli._even_choice import EvenChoice

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")

import numpy as np  # noqa: E402 - after the skip

FPS = 10


def video(path: Path, frame_count: int = 30) -> Path:
    """A video whose frame n has the gray level 8 n. Gray is intact."""
    fourcc = {".mp4": "mp4v", ".avi": "MJPG"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), FPS, (64, 48))
    for number in range(frame_count):
        writer.write(np.full((48, 64, 3), 8 * number % 256, np.uint8))
    writer.release()
    return path


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def levels(images: list[bytes]) -> list[int]:
    """The numbers of the frames in `images`."""
    decoded = [decoded_image(image) for image in images]
    return [round(float(np.asarray(image).mean()) / 8) for image in decoded if image is not None]


def frames(stdout: str) -> list[dict[str, object]]:
    events = [json.loads(line) for line in stdout.splitlines()]
    return [event for event in events if event["event"] == "frame"]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_capture_times_are_positions_in_the_video(run: Run, tmp_path: Path, suffix: str) -> None:
    code, stdout, stderr = run("stream", video(tmp_path / f"in{suffix}"), "--output=jsonl")
    assert code == 0, stderr
    times = [datetime.fromisoformat(str(frame["capture_time"])) for frame in frames(stdout)]
    assert len(times) == 30
    assert [round((time - times[0]).total_seconds(), 3) for time in times] == [number / FPS for number in range(30)]


def test_a_video_that_is_cut_is_inspected_and_then_an_error(run: Run, tmp_path: Path) -> None:
    path = cut(video(tmp_path / "in.avi"), 0.8)
    code, stdout, stderr = run("stream", path)
    assert code == 1
    inspected = len(rows(stdout)) - 2
    assert 1 < inspected < 29
    assert stderr == (
        f"Error: {path} is incomplete or damaged. It ended after {inspected} frames at {(inspected - 1) / FPS} s, "
        "and should have 3.0 s.\n"
    )


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, b"\x00" * 4096], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_video_is_an_error(run: Run, fake: FakeServer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.mp4").write_bytes(content)
    for arguments in (["reference", "capture"], ["reference", "load"], ["stream"]):
        fake.requests.clear()
        code, stdout, stderr = run(*arguments, tmp_path / "in.mp4")
        assert (code, stdout) == (1, "")
        assert stderr == f"Error: OpenCV cannot read {tmp_path / 'in.mp4'}: it is not a video, or it is damaged.\n"
        assert set(fake.requests) <= {"GetServerInfo"}


def test_a_video_without_its_index_or_without_frames_is_an_error(run: Run, tmp_path: Path) -> None:
    for path in (
        cut(video(tmp_path / "cut.mp4"), 0.5),
        video(tmp_path / "none.mp4", 0),
        video(tmp_path / "none.avi", 0),
    ):
        code, stdout, stderr = run("stream", path)
        assert (code, stdout) == (1, "")
        assert stderr.startswith("Error: ")
        assert path.name in stderr


def test_a_video_is_loaded_as_evenly_chosen_frames(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    path = video(tmp_path / "belt.mp4")
    code, stdout, stderr = run("reference", "load", path, "--count", 5)
    assert code == 0
    assert rows(stdout)[0][:4] == ["Loaded", "default:", "5", "images,"]
    assert stderr.startswith(f"{path}: 5 of 30 frames\n")
    numbers = levels(fake.requests["LoadReference"][0].images)
    assert len(numbers) == 5
    assert {later - sooner for sooner, later in itertools.pairwise(numbers)} <= {4, 5, 6, 7, 8}


def test_a_video_is_loaded_at_regular_times(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    assert run("reference", "load", video(tmp_path / "belt.avi"), "--every", "500ms")[0] == 0
    assert levels(fake.requests["LoadReference"][0].images) == [0, 5, 10, 15, 20, 25]


def test_videos_and_images_are_loaded_together(run: Run, fake: FakeServer, tmp_path: Path, folder: Path) -> None:
    code, _, _ = run("reference", "load", folder, video(tmp_path / "belt.avi"), folder / "a.png")
    assert code == 0
    assert fake.references["default"].image_count == 3 + 30


def test_an_incomplete_video_gives_the_frames_that_it_has(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    path = cut(video(tmp_path / "belt.avi"), 0.8)
    for command in (["reference", "load", path, "--count", 4], ["reference", "capture", path, "--every", "500ms"]):
        code, _, stderr = run(*command)
        assert code == 0
        assert "is incomplete or damaged" in stderr
        assert 2 <= fake.references["default"].image_count <= 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{}/new", "--count", 5], "there is none"),
        (["{}/new", "--every", "2s"], "there is none"),
        (["{}/belt.avi", "--every", "2s", "--count", 5], "exclude"),
        (["{}/belt.avi", "--every", "0"], "longer than 0"),
        (["{}/belt.avi", "--every", "fast"], "such as 2s"),
        (["{}/belt.avi", "--count", 0], "1"),
    ],
)
def test_wrong_choices_are_usage_errors(
    run: Run, fake: FakeServer, folder: Path, arguments: list[object], says: str
) -> None:
    video(folder.parent / "belt.avi")
    code, stdout, stderr = run("reference", "load", *[str(argument).format(folder.parent) for argument in arguments])
    assert (code, stdout) == (2, "")
    assert says in stderr
    assert not fake.requests


def test_capture_takes_frames_of_a_video_at_regular_times(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    path = video(tmp_path / "belt.avi")
    code, stdout, stderr = run("reference", "capture", path, "--count", 4, "--every", "500ms", "--id", "belt")
    assert code == 0, stderr
    assert rows(stdout)[0][:4] == ["Loaded", "belt:", "4", "images,"]
    assert levels(fake.requests["LoadReference"][0].images) == [0, 5, 10, 15]
    code, _, stderr = run("reference", "capture", path, "--count", 40, "--every", "500ms")
    assert code == 0
    assert stderr.startswith(f"Warning: {path} ended after 6 of 40 frames.\nNote: With 6 images")


def test_capture_of_a_folder_names_the_command_for_it(run: Run, folder: Path) -> None:
    code, _, stderr = run("reference", "capture", folder)
    assert code == 2
    assert f"patchserve reference load {folder}" in stderr


@pytest.mark.parametrize("command", ["load", "capture"])
def test_reading_a_video_is_shown_on_a_terminal(fake: FakeServer, tmp_path: Path, command: str) -> None:
    output = on_a_terminal("reference", command, video(tmp_path / "belt.avi"), "--count", 3, "--server", fake.address)
    assert ("Reading belt.avi" if command == "load" else "Capturing") in output


@given(st.integers(1, 40), st.integers(0, 500))
def test_an_even_choice_is_even_and_bounded(count: int, total: int) -> None:
    choice, held = EvenChoice[int](count), set[int]()
    for number in range(total):
        if choice.wants(number):
            held.add(number)
            held.difference_update(choice.add(number))
        assert len(held) < 2 * count
    chosen = choice.chosen()
    assert len(chosen) == min(count, total)
    assert set(chosen) <= held
    gaps = [later - sooner for sooner, later in itertools.pairwise([-1, *chosen, total])]
    assert min(gaps) > 0
    assert max(gaps) <= 3 * total / count + 3


@pytest.mark.parametrize("period", [4, 8, 16, 25, 32])
def test_an_even_choice_of_what_repeats_sees_all_of_it(period: int) -> None:
    choice = EvenChoice[int](30)
    for number in range(800):
        if choice.wants(number):
            choice.add(number)
    assert len({number % period for number in choice.chosen()}) >= min(period, 30) / 2
