"""`patchserve stream URL`: cameras that close, freeze and come back, against a scripted server."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.mjpeg_camera import Connection, MjpegCamera, mjpeg_camera
from fakes.terminal import Run, command, rows

from patchserve.v1 import stream_pb2

pytest.importorskip("cv2", reason="the extra `video` is not installed")


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with mjpeg_camera() as made:
        yield made


def events(stdout: str, kind: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in stdout.splitlines()]
    return [event for event in found if event["event"] == kind]


def read_after(fake: FakeServer, camera: MjpegCamera, count: int) -> None:
    """Let the server read frames only after the camera has sent so many."""
    fake.read_frames.clear()

    def wait() -> None:
        camera.wait_for_frames(count)
        fake.read_frames.set()

    threading.Thread(target=wait, daemon=True).start()


def test_a_camera_that_closes_is_opened_again(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(5), Connection(is_refused=True), Connection())
    code, stdout, stderr = run("stream", camera.address, "--limit", 10)
    assert code == 0
    assert "10 frames in" in stdout
    assert camera.connection_count == 3
    closed, back = stderr.splitlines()
    assert closed == (f"Warning: The camera {camera.address} closed the connection. Reconnecting for up to 300 s.")
    assert back.startswith(f"Warning: The camera {camera.address} is back after")


def test_a_camera_that_freezes_is_opened_again(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(3, freezes=True), Connection())
    code, stdout, stderr = run("stream", camera.address, "--limit", 8, "--frozen-after", "500ms")
    assert code == 0
    assert "8 frames in" in stdout
    assert "Reconnecting" in stderr
    assert "is back after" in stderr


def test_a_camera_that_does_not_come_back_ends_the_stream_with_1(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(5), Connection(is_refused=True))
    code, stdout, stderr = run("stream", camera.address, "--reconnect-for", "1s")
    assert code == 1
    assert "intact" in stdout
    assert " frames in" in stdout
    assert stderr.splitlines()[-1].startswith(f"Error: The camera {camera.address} cannot be opened and did not come")
    assert camera.connection_count >= 3


def test_without_reconnecting_the_end_of_a_camera_is_an_error(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(5))
    code, stdout, stderr = run("stream", camera.address, "--reconnect-for", 0)
    assert code == 1
    assert " frames in" in stdout
    assert stderr == f"Error: The camera {camera.address} closed the connection.\n"
    assert camera.connection_count == 1


def test_a_camera_that_cannot_be_opened_is_an_error_at_once(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(is_refused=True))
    code, stdout, stderr = run("stream", camera.address.replace("//", "//user:secret@"))
    assert (code, stdout) == (1, "")
    assert (
        stderr == f"Error: OpenCV cannot open {camera.address.replace('//', '//user:***@')} as a camera or a stream.\n"
    )


def test_frames_are_numbered_through_and_stamped_when_they_arrive(
    run: Run, fake: FakeServer, camera: MjpegCamera
) -> None:
    camera.pause_s = 0.1
    started = datetime.now(UTC)
    read_after(fake, camera, 10)
    code, stdout, _ = run("stream", camera.address, "--limit", 8, "--output=jsonl", "--block", "--max-in-flight", 1)
    assert code == 0
    frames = events(stdout, "frame")
    assert [frame["frame_id"] for frame in frames] == [str(number) for number in range(8)]
    captured = [datetime.fromisoformat(str(frame["capture_time"])) for frame in frames]
    assert all(sent >= started for sent in captured)
    assert captured == sorted(captured)
    # Four pauses of the camera, although all these frames waited for the server and were taken at once.
    assert (captured[6] - captured[2]).total_seconds() >= 0.35


def test_a_live_source_leaves_the_oldest_out_and_says_so(run: Run, fake: FakeServer, camera: MjpegCamera) -> None:
    read_after(fake, camera, 50)
    code, stdout, _ = run("stream", camera.address, "--limit", 5, "--max-in-flight", 1, "--output=jsonl")
    assert code == 0
    (config,) = fake.requests["InferStream"]
    assert (config.overflow, config.max_in_flight) == (stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, 1)
    (summary,) = events(stdout, "summary")
    numbers = [int(str(frame["frame_id"])) for frame in events(stdout, "frame")]
    assert len(numbers) == 5
    assert numbers[1] >= 20  # the first one waited for the server, the second one is new
    assert int(str(summary["left_out"])) >= 20
    assert float(str(summary["longest_lag_s"])) > 0.3


def test_block_loses_no_frame_of_a_live_source(run: Run, fake: FakeServer, camera: MjpegCamera) -> None:
    camera.pause_s = 0.0
    code, stdout, _ = run("stream", camera.address, "--limit", 60, "--max-in-flight", 1, "--output=jsonl", "--block")
    assert code == 0
    (config,) = fake.requests["InferStream"]
    assert config.overflow == stream_pb2.OVERFLOW_POLICY_BLOCK
    assert [frame["frame_id"] for frame in events(stdout, "frame")] == [str(number) for number in range(60)]
    assert events(stdout, "summary")[0]["left_out"] == 0


def test_an_image_that_never_changes_is_told_once(run: Run, camera: MjpegCamera) -> None:
    camera.play(Connection(repeats_a_picture=True))
    code, _, stderr = run("stream", camera.address, "--limit", 60, "--frozen-after", "300ms")
    assert code == 0
    assert stderr.count("the same image") == 1


def test_ctrl_c_ends_a_stream_whose_camera_is_away(fake: FakeServer, camera: MjpegCamera) -> None:
    camera.play(Connection(3), Connection(is_refused=True))
    arguments = command("stream", camera.address, "--server", fake.address)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "Reconnecting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert " frames in" in stdout


def test_frames_of_a_camera_become_a_reference(run: Run, fake: FakeServer, camera: MjpegCamera, tmp_path: Path) -> None:
    camera.play(Connection(2), Connection())
    kept = tmp_path / "new" / "frames"
    code, stdout, stderr = run(
        "reference", "capture", camera.address, "--count", 4, "--every", "50ms", "--out", kept, "--id", "belt"
    )
    assert code == 0
    assert rows(stdout)[0][:4] == ["Loaded", "belt:", "4", "images,"]
    assert "Reconnecting" in stderr
    assert fake.references["belt"].image_count == 4
    assert len(list(kept.glob("frame_*.jpg"))) == 4


def test_a_capture_that_could_not_be_loaded_is_an_error_before_the_camera_is_opened(
    run: Run, fake: FakeServer, camera: MjpegCamera
) -> None:
    code, _, stderr = run("reference", "capture", camera.address, "--count", 51)
    assert code == 2
    assert "at most 50, the server's limit" in stderr
    fake.fail("GetServerInfo", Fault(grpc.StatusCode.UNAUTHENTICATED, "No token.", "NO_CREDENTIALS"))
    code, _, stderr = run("reference", "capture", camera.address)
    assert code == 1
    assert "No token." in stderr
    assert camera.connection_count == 0


def test_a_camera_that_is_lost_makes_no_reference(
    run: Run, fake: FakeServer, camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchserve_client.cli._capture.RECONNECT_FOR_S", 0.5)
    camera.play(Connection(2), Connection(is_refused=True))
    code, stdout, stderr = run("reference", "capture", camera.address, "--every", "10ms")
    assert (code, stdout, fake.references) == (1, "", {})
    assert "did not come back" in stderr


def test_a_url_may_be_longer_than_a_path(run: Run, camera: MjpegCamera) -> None:
    code, stdout, _ = run("stream", f"{camera.address}?signature={'x' * 5000}", "--limit", 1)
    assert code == 0
    assert "1 frame in" in stdout
