"""The command `patchserve` against a scripted server: what it prints, and the code it ends with."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from fakes.fake_server import NOT_SERVING, SERVICE, FakeServer, Fault, dropped, png, reference, serving
from fakes.terminal import command, on_a_terminal
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_client.cli import app
from patchserve_client.cli._sources import Pace

Outcome: TypeAlias = tuple[int, str, str]
Run: TypeAlias = Callable[..., Outcome]
NO_SERVER = (
    "No server answers at localhost:1. "
    "Start one with `patchserve-server serve` or `make serve`, or name another with --server."
)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture
def run(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against the fake server; gives code, stdout and stderr."""
    monkeypatch.setenv("PATCHSERVE_SERVER", fake.address)
    monkeypatch.delenv("PATCHSERVE_TOKEN", raising=False)

    def invoke(*arguments: object) -> Outcome:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two intact images, an anomalous one, and something that is no image."""
    images = tmp_path / "new"
    images.mkdir()
    for name, color in (("a", "green"), ("b", "red"), ("c", "blue")):
        (images / f"{name}.png").write_bytes(png(color))
    (images / "notes.txt").write_text("not looked at")
    (images / ".hidden.png").write_bytes(b"")
    return images


def rows(stdout: str) -> list[list[str]]:
    return [line.split() for line in stdout.splitlines()]


def test_infer_prints_a_row_for_each_image_of_a_folder(run: Run, folder: Path) -> None:
    code, stdout, stderr = run("infer", folder)
    assert (code, stderr) == (0, "")
    header, intact, anomalous, _, summary = rows(stdout)
    assert header == ["file", "verdict", "score", "raw/threshold", "damage", "regions", "ms"]
    assert intact == [str(folder / "a.png"), "intact", "0.333", "5.00/10.00", "7.2", "%", "0", "4.5"]
    assert anomalous == [str(folder / "b.png"), "anomalous", "0.750", "30.00/10.00", "7.2", "%", "1", "4.5"]
    assert " ".join(summary) == "3 images: 2 intact, 1 anomalous, 0 failed"


def test_an_image_that_fails_has_its_row_and_the_rest_goes_on(run: Run, folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"no image")
    code, stdout, _ = run("infer", folder)
    assert code == 1
    assert rows(stdout)[2][:2] == [str(folder / "b.jpg"), "error"]
    assert "The bytes are no image. (UNDECODABLE_IMAGE)" in stdout
    assert stdout.endswith("4 images: 2 intact, 1 anomalous, 1 failed\n")


def test_a_file_that_cannot_be_read_has_its_row(run: Run, folder: Path) -> None:
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("/proc/self/mem")  # a file to look at, but not to read from its start
    code, stdout, _ = run("infer", folder)
    assert code == 1
    assert rows(stdout)[2][1:] == ["error", "Input/output", "error"]
    assert rows(stdout)[3][1] == "intact"


def test_infer_json_has_the_documented_keys(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    code, stdout, _ = run("infer", folder, "--json", "--out", tmp_path / "out")
    assert code == 1
    document = json.loads(stdout)
    assert document["summary"] == {"images": 4, "intact": 2, "anomalous": 1, "error": 1}
    intact, anomalous, bad, _ = document["results"]
    assert set(intact) == {
        "file",
        "verdict",
        "reference_id",
        "reference_revision",
        "anomaly",
        "damage",
        "regions",
        "timing",
        "overlay",
    }
    assert anomalous["verdict"] == "anomalous"
    assert anomalous["anomaly"] == {
        "score": 0.75,
        "raw_score": 30.0,
        "raw_threshold": 10.0,
        "is_anomalous": True,
        "anomalous_area_percentage": 12.5,
    }
    assert anomalous["regions"][0]["bounding_box"] == {"x_px": 2, "y_px": 3, "width_px": 8, "height_px": 5}
    assert anomalous["overlay"] == str(tmp_path / "out" / "b_overlay.png")
    assert bad == {
        "file": str(folder / "bad.png"),
        "verdict": "error",
        "error": {"code": "INVALID_ARGUMENT", "reason": "UNDECODABLE_IMAGE", "message": "The bytes are no image."},
        "overlay": None,
    }


def test_overlays_of_like_names_do_not_overwrite_each_other(run: Run, tmp_path: Path) -> None:
    files = []
    for number, name in enumerate(("one/x.png", "two/x.png", "two/X.bmp", "x_2.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png("blue", (10 + number, 8)))
        files.append(path)
    out = tmp_path / "new" / "out"
    code, stdout, _ = run("infer", *files, files[0], "--out", out, "--heatmap", "calibrated")
    assert code == 0
    named = {"x_overlay.png": 10, "x_2_overlay.png": 11, "X_3_overlay.png": 12, "x_2_2_overlay.png": 13}
    assert {path.name: Image.open(path).size[0] for path in out.iterdir()} == named
    assert [row[-1] for row in rows(stdout)[1:-1]] == list(named)
    assert stdout.endswith("4 images: 4 intact, 0 anomalous, 0 failed\n")


def test_infer_asks_for_what_the_options_say(run: Run, fake: FakeServer, folder: Path, tmp_path: Path) -> None:
    run("infer", folder / "a.png", "--reference", "belt", "--max-regions", 3)
    run("infer", folder / "a.png", "--out", tmp_path / "out", "--heatmap", "relative")
    plain, drawn = fake.requests["Infer"]
    assert (plain.reference_id, plain.output.max_regions, plain.output.overlay) == ("belt", 3, False)
    assert (drawn.output.overlay, drawn.output.heatmap_scale) == (True, inference_pb2.HEATMAP_SCALE_RELATIVE)


@pytest.mark.parametrize(("overlay_format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")])
def test_overlays_are_files_of_their_format_and_size(
    run: Run, folder: Path, tmp_path: Path, overlay_format: str, suffix: str
) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run(
        "infer", folder / "a.png", "--out", out, "--overlay-format", overlay_format, "--overlay-max-side", 16
    )
    assert code == 0
    assert f"a_overlay{suffix}" in stdout
    with Image.open(out / f"a_overlay{suffix}") as overlay:
        assert (overlay.format, max(overlay.size)) == (overlay_format.upper(), 16)


@pytest.mark.parametrize(("name", "code"), [("a", 0), ("b", 3)])
def test_fail_on_anomaly(run: Run, folder: Path, name: str, code: int) -> None:
    assert run("infer", folder / f"{name}.png", "--fail-on-anomaly")[0] == code
    assert run("infer", folder / f"{name}.png")[0] == 0


def test_a_failed_image_counts_more_than_an_anomaly(run: Run, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    assert run("infer", folder, "--fail-on-anomaly")[0] == 1


def test_a_full_server_is_asked_again_when_it_says(run: Run, fake: FakeServer, folder: Path) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1)
    full = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", "QUEUE_FULL", [retry])
    fake.fail("Infer", full, times=5)
    assert run("infer", folder / "a.png")[0] == 0
    fake.fail("Infer", full, times=99)
    code, stdout, _ = run("infer", folder / "a.png")
    assert code == 1
    assert "Full. (QUEUE_FULL)" in stdout


def test_what_every_image_would_meet_ends_it_with_one_line(run: Run, fake: FakeServer, folder: Path) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="reference_id")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    fake.fail("Infer", Fault(grpc.StatusCode.INVALID_ARGUMENT, "Bad id.\nTry another.", "INVALID_FIELD", details), 99)
    code, stdout, stderr = run("infer", folder, "--reference", "?")
    assert (code, stdout) == (1, "")
    assert stderr == "Error: Bad id. Try another. (INVALID_ARGUMENT, INVALID_FIELD)\n"


@pytest.mark.parametrize("arguments", [["infer", "{}/a.png"], ["stream", "{}"], ["health"]])
def test_no_server_is_said_with_what_to_do(run: Run, folder: Path, arguments: list[str]) -> None:
    code, _, stderr = run(*[argument.format(folder) for argument in arguments], "--server", "localhost:1")
    assert (code, stderr) == (1, f"Error: {NO_SERVER}\n")


def test_what_is_typed_after_the_command_wins_and_both_win_over_the_variable(run: Run, fake: FakeServer) -> None:
    assert run("--server", "localhost:1", "info", "--server", fake.address)[0] == 0
    assert run("--server", fake.address, "info")[0] == 0
    assert run("--server", "localhost:1", "info")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infer", "{}/missing.png"], "missing.png"),
        (["infer", "{}/empty"], "There are no images in"),
        (["infer"], "FILE|DIR"),
        (["infer", "{}", "--heatmap", "calibrated"], "--out"),
        (["infer", "{}", "--heatmap", "hot", "--out", "o"], "calibrated"),
        (["infer", "{}", "--overlay-format", "jpeg"], "--out"),
        (["infer", "{}", "--overlay-max-side", "640"], "--out"),
        (["infer", "{}", "--overlay-format", "gif", "--out", "o"], "webp"),
        (["infer", "{}", "--overlay-max-side", "15", "--out", "o"], " 16"),
        (["stream", "{}", "--overlay-max-side", "640"], "--annotated-video"),
        (["reference", "load", "{}/empty"], "There are no images in"),
        (["reference", "load", "{}", "--coreset-ratio", "0"], "above 0"),
        (["reference", "load", "{}", "--coreset-ratio", "0.5", "--coreset-max-patches", "9"], "exclude"),
        (["reference", "delete"], "ID"),
        (["stream", "{}/missing"], "no folder, no video file"),
        (["stream", "{}/empty"], "There are no images in"),
        (["stream", "{}", "--annotated-video", "o.gif"], ".mp4"),
        (["info", "--server", "http://localhost:50051"], "HOST:PORT"),
        (["info", "--cert", "{}/a.png"], "key_file"),
        (["info", "--timeout", "0"], "timeout"),
        (["--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, folder: Path, arguments: list[str], says: str) -> None:
    (folder / "empty").mkdir()
    code, stdout, stderr = run(*[argument.format(folder) for argument in arguments])
    assert (code, stdout) == (2, "")
    assert says in stderr
    assert "Traceback" not in stderr


def test_the_version_is_printed_without_a_command(run: Run) -> None:
    assert run("--version") == (0, f"patchserve {version('patchserve')}\n", "")


def test_help_tells_the_exit_codes(run: Run) -> None:
    for words in ([], ["infer"], ["stream"], ["health"]):
        code, stdout, _ = run(*words, "--help")
        assert code == 0
        assert "Exit codes: 0" in " ".join(stdout.split())


def test_a_reference_is_loaded_listed_shown_and_deleted(run: Run, fake: FakeServer, folder: Path) -> None:
    assert "holds no reference" in run("reference", "list")[1]
    options = ["--id", "belt", "--profile", "paper", "--coreset-max-patches", 99]
    code, stdout, _ = run("reference", "load", folder, folder / "a.png", *options)
    assert code == 0
    assert stdout.startswith("Loaded belt: 3 images, 2352 patches, threshold 10.5, revision ")
    (request,) = fake.requests["LoadReference"]
    assert request.profile == reference_pb2.SCORING_PROFILE_PAPER
    assert request.coreset.max_patches == 99
    assert run("reference", "load", folder / "a.png", "--id", "belt", "--append")[1].startswith("Loaded belt: 4 image")

    fake.references["a-very-long-name-" * 3] = reference("a-very-long-name-" * 3, 12)
    code, stdout, _ = run("reference", "list")
    assert [row[0] for row in rows(stdout)] == ["id", "a-very-long-name-" * 3, "belt"]
    assert [row["reference_id"] for row in json.loads(run("reference", "list", "--json")[1])] == [
        "a-very-long-name-" * 3,
        "belt",
    ]
    assert "calibration.method          leave_one_out" in run("reference", "show", "belt")[1]
    shown = json.loads(run("reference", "show", "belt", "--json")[1])
    assert shown["calibration"]["normal_scores"]["count"] == 4
    assert shown["create_time"] == "2025-01-02T03:04:05+00:00"

    assert run("reference", "delete", "belt")[0] == 0
    code, _, stderr = run("reference", "delete", "belt")
    assert code == 1
    assert stderr.startswith('Error: There is no reference "belt". (NOT_FOUND, REFERENCE_NOT_FOUND) ')
    assert "`patchserve reference load`" in stderr


def test_a_refused_image_of_a_load_is_named(run: Run, fake: FakeServer, folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no image")
    code, stdout, stderr = run("reference", "load", folder)
    assert (code, stdout) == (1, "")
    assert stderr == f"Error: {folder / 'b.png'}: The bytes are no image. Nothing was loaded. (UNDECODABLE_IMAGE)\n"
    assert not fake.references


def test_info_and_health(run: Run, fake: FakeServer) -> None:
    code, stdout, _ = run("info")
    assert code == 0
    assert ["version", "1.2.3"] in rows(stdout)
    assert ["max_in_flight", "64"] in rows(stdout)
    assert json.loads(run("info", "--json")[1])["limits"]["max_image_bytes"] == 2**25
    assert run("health") == (0, "alive: yes\nready: yes\n", "")
    asyncio.run(fake.health.set(SERVICE, NOT_SERVING))
    assert run("health") == (1, "alive: yes\nready: no\n", "")


def test_the_token_is_sent_and_never_shown(run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_TOKEN", "from-the-variable")
    run("info")
    run("info", "--token", "typed")
    assert [seen["authorization"] for seen in fake.metadata] == ["Bearer from-the-variable", "Bearer typed"]
    fake.fail("GetServerInfo", Fault(grpc.StatusCode.UNAUTHENTICATED, "Who are you?", "NO_TOKEN"))
    code, stdout, stderr = run("info")
    assert code == 1
    assert "PATCHSERVE_TOKEN" in stderr
    assert "from-the-variable" not in stdout + stderr + run("info", "--help")[1]


def test_the_token_may_stand_in_a_file(
    run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("PATCHSERVE_TOKEN", "from-the-variable")
    (folder / "token").write_text("from-the-file\n")
    assert run("info", "--token-file", folder / "token")[0] == 0
    assert fake.metadata[-1]["authorization"] == "Bearer from-the-file"


def test_a_token_is_not_sent_unencrypted_to_another_machine(run: Run) -> None:
    code, stdout, stderr = run("info", "--server", "192.0.2.1:1", "--token", "s3cret")
    assert code == 2
    assert "--insecure-token" in stderr
    assert "s3cret" not in stdout + stderr
    assert run("info", "--server", "192.0.2.1:1", "--token", "s3cret", "--insecure-token", "--timeout", 0.1)[0] == 1


def test_stream_prints_a_row_for_each_frame_and_a_summary(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_REFERENCE_CHANGED, message="Newer one.")]
    fake.frame_faults[2] = dropped()
    code, stdout, stderr = run("stream", folder, "--max-in-flight", 2, "--drop-oldest", "--timeout", 5)
    assert (code, stderr) == (0, "Notice: Newer one.\n")
    header, first, second, third, summary = rows(stdout)
    assert header[:3] == ["#", "frame", "verdict"]
    assert first == ["0", "a.png", "intact", "0.333", "5.00/10.00", "7.2", "%", "0", "4.5"]
    assert second[:3] == ["1", "b.png", "anomalous"]
    assert third[:3] == ["2", "c.png", "dropped"]
    assert " ".join(summary).endswith("1 intact, 1 anomalous, 0 failed, 1 dropped")
    (config,) = fake.requests["InferStream"]
    assert config.overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert (config.max_in_flight, config.frame_timeout.seconds) == (2, 5)


def test_stream_json_is_one_object_a_line(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="Going down.")]
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("/proc/self/mem")
    (folder / "d.png").write_bytes(b"")
    code, stdout, _ = run("stream", folder, "--json")
    assert code == 1
    events = [json.loads(line) for line in stdout.splitlines()]
    assert events[0] == {"event": "notice", "kind": "draining", "message": "Going down."}
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
    assert summary == {"event": "summary", "frames": 4, "intact": 2, "anomalous": 0, "error": 2, "dropped": 0}


def test_a_stream_that_the_server_ends_says_why_after_its_summary(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.stream_end = (1, Fault(grpc.StatusCode.UNAVAILABLE, "Shutting down.", "DRAINING"))
    code, stdout, stderr = run("stream", folder)
    assert code == 1
    assert "1 frame in" in stdout
    assert stderr == "Error: Shutting down. (UNAVAILABLE, DRAINING)\n"


def test_a_stream_goes_on_over_the_loss_of_its_server(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.stream_ends.append((1, Fault(grpc.StatusCode.UNAVAILABLE, "Shutting down.", "DRAINING")))
    code, stdout, _ = run("stream", folder, "--resume-for", 60)
    assert code == 0
    assert [row[0] for row in rows(stdout)[1:4]] == ["0", "1", "2"]


def test_limit_ends_a_stream(run: Run, fake: FakeServer, folder: Path) -> None:
    code, stdout, _ = run("stream", folder, "--limit", 2)
    assert code == 0
    assert "2 frames in" in stdout
    assert len(fake.requests["frame"]) == 2


def test_a_video_is_sampled_and_drawn_on(run: Run, fake: FakeServer, tmp_path: Path) -> None:
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
    assert (written.get(cv2.CAP_PROP_FRAME_WIDTH), written.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (32, 24)


def test_without_opencv_a_video_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "in.avi").write_bytes(b"")
    code, _, stderr = run("stream", tmp_path / "in.avi")
    assert code == 2
    assert 'pip install "patchserve[video]"' in stderr
    assert run("stream", folder)[0] == 0


def test_what_is_no_video_is_said(run: Run, folder: Path) -> None:
    pytest.importorskip("cv2", reason="the extra `video` is not installed")
    code, _, stderr = run("stream", folder / "notes.txt")
    assert code == 2
    assert "OpenCV cannot open" in stderr


def test_a_terminal_gets_colors_and_a_progress_bar_a_pipe_neither(fake: FakeServer, folder: Path) -> None:
    arguments = ["infer", folder, "--server", fake.address]
    shown = on_a_terminal(*arguments)
    assert "\x1b[31manomalous\x1b[0m" in shown
    assert "Inspecting" in shown
    assert "\x1b[31m" not in on_a_terminal(*arguments, NO_COLOR="1")
    piped = subprocess.run(command(*arguments), capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout
    assert "Inspecting" not in piped.stdout + piped.stderr
    assert all(line.isascii() for line in piped.stdout.replace(str(folder), "").splitlines())


@given(st.floats(0.1, 100), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_a_pace_lets_no_more_through_than_it_says(fps: float, steps_s: list[float]) -> None:
    pace, taken_s = Pace(fps), []
    for now_s in itertools.accumulate(steps_s):
        if pace.wait_s(now_s) == 0:
            pace.taken(now_s)
            taken_s.append(now_s)
    assert taken_s[0] == steps_s[0]
    for first, last in itertools.combinations(range(len(taken_s)), 2):
        allowed = (taken_s[last] - taken_s[first]) * fps + 2  # one at each end
        assert last - first + 1 <= allowed + 1e-3


def test_a_long_name_fits_a_frame_id(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    name = "ä" * 110 + "_0042.png"
    (tmp_path / name).write_bytes(png())
    assert run("stream", tmp_path)[0] == 0
    (frame,) = fake.requests["frame"]
    assert len(frame.frame_id.encode()) <= 128
    assert name.endswith(frame.frame_id)
    assert frame.frame_id.endswith("_0042.png")
