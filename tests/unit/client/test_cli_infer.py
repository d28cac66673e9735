"""`patchserve infer` against a scripted server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import inspected, png, reference
from fakes.terminal import Run, rows
from google.rpc import error_details_pb2
from PIL import Image

from patchserve.v1 import inference_pb2


def test_infer_prints_a_row_for_each_image_of_a_folder(run: Run, folder: Path) -> None:
    code, stdout, stderr = run("infer", folder)
    assert (code, stderr) == (0, "")
    header, intact, anomalous, _, summary = rows(stdout)
    assert header == ["file", "verdict", "x", "threshold", "regions", "ms"]
    assert intact == [str(folder / "a.png"), "intact", "0.50", "x", "0", "4.5"]
    assert anomalous == [str(folder / "b.png"), "anomalous", "3.00", "x", "1", "4.5"]
    assert re.fullmatch(r"3 images in \S+ s \(\S+/s\): 2 intact, 1 anomalous, 0 failed", " ".join(summary))


def test_the_notebooks_damage_is_shown_on_request_only(run: Run, folder: Path) -> None:
    _, stdout, _ = run("infer", folder / "a.png", "--damage")
    assert rows(stdout)[0][-2:] == ["damage", "ms"]
    assert rows(stdout)[1][-3:] == ["7.2", "%", "4.5"]
    plain, asked = (
        json.loads(run("infer", folder / "a.png", "--output=json", *more)[1]) for more in ((), ("--damage",))
    )
    assert "damage" not in plain["results"][0]
    assert asked["results"][0]["damage"] == {"damage_percentage": 7.25, "anomaly_detected": True, "threshold": 0.5}


def test_a_threshold_moves_the_verdict_in_the_unit_of_the_ratios(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.references["default"] = reference("default", 1)
    _, stdout, _ = run("infer", folder / "a.png", "--threshold", 0.8, "--output=json")
    assert fake.requests["Infer"][0].output.sensitivity == pytest.approx(1.25)
    (found,) = json.loads(stdout)["results"]
    assert (found["ratio"], found["threshold"]) == (pytest.approx(0.4), 0.8)  # the fake ignores the sensitivity
    fake.references["default"].sensitivity = 2
    run("infer", folder / "a.png", "--threshold", 0.8)
    assert fake.requests["Infer"][1].output.sensitivity == pytest.approx(2.5)
    code, _, stderr = run("infer", folder / "a.png", "--threshold", 0.8, "--sensitivity", 2)
    assert code == 2
    assert "exclude each other" in " ".join(stderr.replace("│", " ").split())


def test_regions_that_were_not_requested_are_not_counted(run: Run, folder: Path) -> None:
    assert rows(run("infer", folder / "b.png", "--max-regions", 0)[1])[1][-2:] == ["-", "4.5"]


def test_an_image_that_fails_has_a_row_and_the_others_go_on(run: Run, folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"no image")
    code, stdout, _ = run("infer", folder)
    assert code == 1
    assert rows(stdout)[2][:2] == [str(folder / "b.jpg"), "error"]
    assert "The bytes are not an image. (UNDECODABLE_IMAGE)" in stdout
    assert stdout.endswith(": 2 intact, 1 anomalous, 1 failed\n")


def test_a_file_that_cannot_be_read_has_a_row(run: Run, folder: Path) -> None:
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("/proc/self/mem")  # exists, but cannot be read
    code, stdout, _ = run("infer", folder)
    assert code == 1
    assert rows(stdout)[2][1:] == ["error", "Input/output", "error"]
    assert rows(stdout)[3][1] == "intact"


def test_infer_json_has_the_documented_keys(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    code, stdout, _ = run("infer", folder, "--output=json", "--out", tmp_path / "out")
    assert code == 1
    document = json.loads(stdout)
    assert document["summary"].pop("elapsed_s") > 0
    assert document["summary"] == {"images": 4, "intact": 2, "anomalous": 1, "error": 1}
    intact, anomalous, bad, _ = document["results"]
    assert set(intact) == {
        "file",
        "verdict",
        "ratio",
        "threshold",
        "reference_id",
        "reference_revision",
        "anomaly",
        "regions",
        "timing",
        "overlay",
    }
    assert (anomalous["verdict"], anomalous["ratio"], anomalous["threshold"]) == ("anomalous", 3.0, 1.0)
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
        "error": {"code": "INVALID_ARGUMENT", "reason": "UNDECODABLE_IMAGE", "message": "The bytes are not an image."},
        "overlay": None,
    }


def test_overlays_of_images_with_the_same_stem_do_not_overwrite_each_other(run: Run, tmp_path: Path) -> None:
    files = []
    for number, name in enumerate(("x.png", "two/x.png", "X.bmp", "x_2.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png("blue", (400 + number, 80)))
        files.append(path)
    out = tmp_path / "new" / "out"
    code, stdout, _ = run("infer", *files, files[0], "--out", out, "--heatmap-scale", "calibrated")
    assert code == 0
    named = {"x_overlay.png": 400, "two/x_overlay.png": 401, "X_2_overlay.png": 402, "x_2_2_overlay.png": 403}
    assert {path.relative_to(out).as_posix(): Image.open(path).size[0] for path in out.rglob("*.png")} == named
    assert [row[-1] for row in rows(stdout)[1:-1]] == list(named)
    assert stdout.endswith(": 4 intact, 0 anomalous, 0 failed\n")


def test_infer_sends_its_options(run: Run, fake: FakeServer, folder: Path, tmp_path: Path) -> None:
    run("infer", folder / "a.png", "--reference", "belt", "--max-regions", 3)
    run("infer", folder / "a.png", "--out", tmp_path / "out")
    run("infer", folder / "a.png", "--out", tmp_path / "out", "--heatmap-scale", "relative")
    plain, drawn, relative = (request.output for request in fake.requests["Infer"])
    assert (fake.requests["Infer"][0].reference_id, plain.max_regions, plain.overlay) == ("belt", 3, False)
    assert (drawn.overlay, drawn.heatmap_scale) == (True, inference_pb2.HEATMAP_SCALE_CALIBRATED)
    assert (drawn.overlay_max_side_px, drawn.overlay_format) == (2048, inference_pb2.OVERLAY_FORMAT_PNG)
    assert relative.heatmap_scale == inference_pb2.HEATMAP_SCALE_RELATIVE


def test_overlays_are_annotated_unless_the_exact_ones_are_requested(
    run: Run, fake: FakeServer, folder: Path, tmp_path: Path
) -> None:
    options = ("--heatmap-scale", "relative", "--exact")
    for more, out in (((), "annotated"), (options, "exact")):
        assert run("infer", folder / "b.png", "--out", tmp_path / out, *more)[0] == 0
    output = fake.requests["Infer"][1].output
    assert (output.heatmap_scale, output.overlay_max_side_px) == (inference_pb2.HEATMAP_SCALE_RELATIVE, 0)
    response = inspected("default", (folder / "b.png").read_bytes(), output)
    assert isinstance(response, inference_pb2.InferResponse)
    assert (tmp_path / "exact" / "b_overlay.png").read_bytes() == response.overlay_png
    with Image.open(tmp_path / "annotated" / "b_overlay.png") as picture:
        assert picture.size == (360, 42 + 270)


@pytest.mark.parametrize("exact", [(), ("--exact",)])
@pytest.mark.parametrize("overlay_format", ["png", "jpeg", "webp"])
def test_overlays_have_the_requested_format_and_size(
    run: Run, folder: Path, tmp_path: Path, overlay_format: str, exact: tuple[str, ...]
) -> None:
    out, suffix = tmp_path / "out", {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}[overlay_format]
    code, stdout, _ = run(
        "infer", folder / "a.png", "--out", out, "--overlay-format", overlay_format, "--overlay-max-side", 16, *exact
    )
    assert code == 0
    assert f"a_overlay{suffix}" in stdout
    with Image.open(out / f"a_overlay{suffix}") as overlay:
        assert (overlay.format, overlay.width) == (overlay_format.upper(), 16 if exact else 360)


@pytest.mark.parametrize(("name", "code"), [("a", 0), ("b", 3)])
def test_fail_on_anomaly_exits_with_3_for_an_anomalous_image_only(run: Run, folder: Path, name: str, code: int) -> None:
    assert run("infer", folder / f"{name}.png", "--fail-on-anomaly")[0] == code
    assert run("infer", folder / f"{name}.png")[0] == 0


def test_the_code_of_a_failed_image_wins_over_that_of_an_anomaly(run: Run, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    assert run("infer", folder, "--fail-on-anomaly")[0] == 1


def test_infer_tries_again_while_the_server_is_full(run: Run, fake: FakeServer, folder: Path) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1)
    full = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", "QUEUE_FULL", [retry])
    fake.fail("Infer", full, times=5)
    assert run("infer", folder / "a.png")[0] == 0
    fake.fail("Infer", full, times=99)
    code, stdout, _ = run("infer", folder / "a.png")
    assert code == 1
    assert "Full. (QUEUE_FULL)" in stdout


def test_an_error_of_every_image_ends_infer_with_one_line(run: Run, fake: FakeServer, folder: Path) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="reference_id")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    fake.fail("Infer", Fault(grpc.StatusCode.INVALID_ARGUMENT, "Bad id.\nTry another.", "INVALID_FIELD", details), 99)
    code, stdout, stderr = run("infer", folder, "--reference", "?")
    assert (code, stdout) == (1, "")
    assert stderr == "Error: Bad id. Try another. (INVALID_ARGUMENT, INVALID_FIELD)\n"
