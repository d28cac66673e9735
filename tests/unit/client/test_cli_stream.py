"""`patchserve stream` against a scripted server."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import grpc
import pytest
import typer
from fakes.fake_server import FakeServer
from fakes.faults import Fault, dropped
from fakes.responses import inspected, png
from fakes.terminal import Run, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.core import TyperGroup

from patchserve.v1 import inference_pb2, stream_pb2
from patchserve_client import FrameResult
from patchserve_client._results import inference_result
from patchserve_client.cli import app
from patchserve_client.cli._overlay_files import OverlayFiles
from patchserve_client.cli._sources import Pace


def test_stream_prints_a_row_for_each_frame_and_a_summary(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_REFERENCE_CHANGED, message="Newer one.")]
    fake.frame_faults[2] = dropped()
    code, stdout, stderr = run("stream", folder, "--max-in-flight", 2, "--drop-oldest", "--timeout", 5)
    assert (code, stderr) == (0, "Notice: Newer one.\n")
    header, first, second, third, summary = rows(stdout)
    assert header[:3] == ["#", "frame", "verdict"]
    assert first == ["0", "a.png", "intact", "0.50", "x", "0", "4.5"]
    assert second[:3] == ["1", "b.png", "anomalous"]
    assert third[:3] == ["2", "c.png", "dropped"]
    assert " ".join(summary).endswith("1 intact, 1 anomalous, 0 failed, 1 dropped")
    (config,) = fake.requests["InferStream"]
    assert config.overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert (config.max_in_flight, config.frame_timeout.seconds) == (2, 5)


def test_stream_json_is_one_object_per_line(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="Going down.")]
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("/proc/self/mem")
    (folder / "d.png").write_bytes(b"")
    code, stdout, _ = run("stream", folder, "--output=jsonl")
    assert code == 1
    events = [json.loads(line) for line in stdout.splitlines()]
    assert [event for event in events if event["event"] == "notice"] == [
        {"event": "notice", "kind": "draining", "message": "Going down."}
    ]
    frames = {event["frame_id"]: event for event in events if event["event"] == "frame"}
    assert {name: frame["verdict"] for name, frame in frames.items()} == {
        "a.png": "intact",
        "b.png": "error",
        "c.png": "intact",
        "d.png": "error",
    }
    assert (frames["b.png"]["sequence"], frames["b.png"]["error"]["code"]) == (None, "OS_ERROR")
    assert frames["c.png"]["anomaly"]["is_anomalous"] is False
    summary = events[-1]
    assert summary.pop("elapsed_s") > 0
    assert summary == {
        "event": "summary",
        "frames": 4,
        "intact": 2,
        "anomalous": 0,
        "error": 2,
        "dropped": 0,
        "left_out": 0,
        "longest_lag_s": None,
    }


def test_a_stream_that_the_server_ends_prints_its_summary_and_the_error(
    run: Run, fake: FakeServer, folder: Path
) -> None:
    fake.stream_end = (1, Fault(grpc.StatusCode.UNAVAILABLE, "Shutting down.", "DRAINING"))
    code, stdout, stderr = run("stream", folder)
    assert code == 1
    assert "1 frame in" in stdout
    assert stderr == "Error: Shutting down. (UNAVAILABLE, DRAINING)\n"


def test_a_stream_with_resume_for_survives_a_lost_connection(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.stream_ends.append((1, Fault(grpc.StatusCode.UNAVAILABLE, "Shutting down.", "DRAINING")))
    code, stdout, stderr = run("stream", folder, "--resume-for", "1m")
    assert code == 0
    lost, resumed = stderr.splitlines()
    assert lost == "Notice: The stream lost its server, reconnecting: Shutting down."
    assert resumed.startswith("Notice: Resumed after ")
    assert [row[0] for row in rows(stdout)[1:4]] == ["0", "1", "2"]


def test_one_image_is_a_stream_of_one_frame(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number:03}.png").write_bytes(png())
    code, stdout, _ = run("stream", tmp_path / "000.png")
    assert code == 0
    assert [row[1] for row in rows(stdout)[1:-1]] == ["000.png"]


def test_limit_stops_a_stream(run: Run, fake: FakeServer, folder: Path) -> None:
    code, stdout, _ = run("stream", folder, "--limit", 2)
    assert code == 0
    assert "2 frames in" in stdout
    assert len(fake.requests["frame"]) == 2


def test_a_video_is_sampled_and_annotated(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    import numpy as np  # noqa: PLC0415

    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for number in range(30):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2 if number >= 15 else 1] = 200
        writer.write(frame)
    writer.release()
    out, overlays = tmp_path / "out.mp4", ("--overlay-format", "jpeg", "--overlay-max-side", 32)
    code, stdout, _ = run("stream", tmp_path / "in.avi", "--fps", 10, "--annotated-video", out, *overlays)
    assert code == 0
    output = fake.requests["InferStream"][0].output
    assert output.overlay_format == inference_pb2.OVERLAY_FORMAT_JPEG
    assert [row[1:3] for row in rows(stdout)[1:-1]] == [
        [str(number), "anomalous" if number >= 15 else "intact"] for number in range(0, 30, 3)
    ]
    assert output.heatmap_scale == inference_pb2.HEATMAP_SCALE_CALIBRATED
    written = cv2.VideoCapture(str(out))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert written.get(cv2.CAP_PROP_FPS) == 10
    assert (written.get(cv2.CAP_PROP_FRAME_WIDTH), written.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (
        360,
        312,
    )  # with a header


def test_without_opencv_a_video_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "in.avi").write_bytes(b"")
    code, stdout, stderr = run("stream", tmp_path / "in.avi")
    assert (code, stdout) == (1, "")
    assert stderr == 'Error: Video requires OpenCV: `pip install ".[video]"` in a checkout of patchserve.\n'
    assert run("stream", folder)[0] == 0


@settings(deadline=None)
@given(st.floats(0.1, 100), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_a_pace_lets_at_most_fps_frames_a_second_pass(fps: float, steps_s: list[float]) -> None:
    pace, passed_s = Pace(fps), []
    for now_s in itertools.accumulate(steps_s):
        if pace.wait_s(now_s) == 0:
            pace.passed(now_s)
            passed_s.append(now_s)
    assert passed_s[0] == steps_s[0]
    for first, last in itertools.combinations(range(len(passed_s)), 2):
        allowed = (passed_s[last] - passed_s[first]) * fps + 2  # one at each end
        assert last - first + 1 <= allowed + 1e-3


def test_a_long_file_name_is_shortened_to_a_frame_id(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    name = "ä" * 110 + "_0042.png"
    (tmp_path / name).write_bytes(png())
    assert run("stream", tmp_path)[0] == 0
    (frame,) = fake.requests["frame"]
    assert len(frame.frame_id.encode()) <= 128
    assert name.endswith(frame.frame_id)
    assert frame.frame_id.endswith("_0042.png")


def test_stream_takes_the_options_of_infer(run: Run, fake: FakeServer, folder: Path, tmp_path: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(png("red"))
    out = tmp_path / "new" / "out"
    options = ["--heatmap-scale", "relative", "--sensitivity", 2, "--max-regions", 3, "--overlay-format", "jpeg"]
    code, stdout, _ = run("stream", folder, "--out", out, "--fail-on-anomaly", "--damage", *options)
    assert code == 3
    assert "damage" in stdout
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
    assert written == ["a_overlay.jpg", "b_overlay.jpg", "c_overlay.jpg", "sub/a_overlay.jpg"]
    output = fake.requests["InferStream"][0].output
    assert output.heatmap_scale == inference_pb2.HEATMAP_SCALE_RELATIVE
    assert (output.sensitivity, output.max_regions) == (2, 3)


def test_infer_and_stream_have_the_same_options() -> None:
    shared = set(options_of("infer"))
    assert {"out", "results", "save_anomalies", "heatmap_scale", "sensitivity", "fail_on_anomaly"} <= shared
    assert shared - {"images"} <= set(options_of("stream"))


def options_of(name: str) -> list[str]:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return [str(parameter.name) for parameter in command.commands[name].params]


def test_exit_codes_of_a_stream(run: Run, fake: FakeServer, folder: Path) -> None:
    assert run("stream", folder)[0] == 0
    (folder / "bad.png").write_bytes(b"")
    assert run("stream", folder, "--fail-on-anomaly")[0] == 1


def test_overlays_that_cannot_be_written_are_an_error_at_the_end(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    code, stdout, stderr = run("stream", folder, "--out", tmp_path / "out")
    assert code == 1
    assert "3 frames in" in stdout
    assert stderr.count("No space left on device") == 1
    assert stderr.endswith(f"Error: 3 overlays could not be written to {tmp_path / 'out'}.\n")


def test_a_reference_that_does_not_fit_is_told(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchserve_client.cli._stream_health._CLOSE", (0.4, 4))
    for number in range(10):
        (folder / f"x{number}.png").write_bytes(png())
    _, stdout, stderr = run("stream", folder)
    assert "13 of the first 13 frames score close to the threshold" in stderr
    _, stdout, _ = run("stream", folder, "--output=jsonl")
    (warning,) = [event for event in map(json.loads, stdout.splitlines()) if event["event"] == "warning"]
    assert warning["kind"] == "reference"


@pytest.mark.parametrize("name", ["../../up.png", "/etc/passwd", "..", "a/../../b.png", "x\0y", ".", "a/", "//x"])
def test_a_server_that_returns_other_names_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    response = inspected("belt", png("red"), inference_pb2.OutputOptions(overlay=True))
    assert isinstance(response, inference_pb2.InferResponse)
    frame = FrameResult(name, 0, None, inference_result(response), None)
    with OverlayFiles(tmp_path / "out", lambda _: b"overlay", ".png") as files:
        files.write(frame)
        files.write(frame)
    written = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")]
    assert written == ["out", "out"]
