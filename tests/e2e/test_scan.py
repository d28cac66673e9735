"""`patchserve scan`: the verdicts of Infer for a whole folder, also after kills, and on a cluster."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from e2e.in_process import in_process_server
from fakes import scan_process
from fakes.detector import FakeDetector
from fakes.gray import gray_png, reference
from fakes.object_servers import ObjectServer
from fakes.scans import rows_in
from PIL import Image
from typer.testing import CliRunner

from patchserve_client import Client, HeatmapScale, InferenceResult, OverlayFormat
from patchserve_command.commands import app
from patchserve_server.bootstrap import composition
from patchserve_server.domain.ports import Detector
from patchserve_server.scan.results import open_results
from patchserve_server.store.objects import open_object_storage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "parcels"
TESTS = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    """A server that holds the lock of its store, with the reference "belt"."""
    with in_process_server(store=store) as address, Client(address) as client:
        client.load_reference([gray_png(100), gray_png(104)], "belt")
        yield address


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line whose engine is a fake."""
    monkeypatch.setenv("PATCHSERVE_SERVER", address)
    monkeypatch.setattr(composition, "open_detector", lambda _: FakeDetector())
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def spotted(level: int, side_px: int) -> bytes:
    """A gray image with a white square."""
    image = Image.open(io.BytesIO(gray_png(level, (48, 40)))).convert("RGB")
    image.paste((255, 255, 255), (30, 4, 30 + side_px, 4 + side_px))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight images of three kinds and sizes, and four files that are none."""
    folder = tmp_path / "photos"
    (folder / "line 2").mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(gray_png(100 + 10 * number, (24 + number, 20)))
        (folder / "line 2" / f"ü {number}.png").write_bytes(spotted(102, 3 * number + 1))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "line 2" / "cut.png").write_bytes(gray_png(100)[:-20])
    (folder / "text.jpg").write_bytes(b"no image")
    (folder / "gone.jpg").symlink_to(folder)  # a folder under the name of an image
    return folder


def rows_of(results: Path) -> list[dict[str, Any]]:
    files = sorted((results / "verdicts").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def assert_same(row: dict[str, Any], result: InferenceResult) -> None:
    """Every number of the row is that of the response, in every bit."""
    anomaly = result.anomaly
    assert row["verdict"] == ("anomalous" if anomaly.is_anomalous else "intact")
    assert (row["ratio"], row["score"], row["raw_score"], row["raw_threshold"]) == (
        anomaly.ratio,
        anomaly.score,
        anomaly.raw_score,
        anomaly.raw_threshold,
    )
    assert row["anomalous_area_percentage"] == anomaly.anomalous_area_percentage
    assert row["damage_percentage"] == result.damage.damage_percentage
    assert (row["reference_id"], row["revision"]) == (result.reference_id, result.reference_revision)
    assert [region_of(each) for each in row["regions"]] == [
        (
            (box.x_px, box.y_px, box.width_px, box.height_px),
            region.polygon,
            (region.area_px, region.area_percentage, region.peak_score),
        )
        for region in result.regions
        for box in [region.bounding_box]
    ]


def region_of(row: dict[str, Any]) -> tuple[object, ...]:
    box = tuple(row[name] for name in ("x_px", "y_px", "width_px", "height_px"))
    polygon = tuple((point["x_px"], point["y_px"]) for point in row["polygon"])
    return box, polygon, tuple(row[name] for name in ("area_px", "area_percentage", "peak_score"))


def test_rows_are_what_the_server_answers_with_its_overlays(
    run: Run, address: str, store: Path, photos: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = run(
        "scan", photos, "--reference", "belt", "--store", store, "--out", "results", "--overlays", "anomalous"
    )
    assert code == 0, stderr
    assert "11 images compared with belt" in stdout
    assert "3 failed" in stdout
    rows = rows_of(tmp_path / "results")
    assert [Path(row["path"]).relative_to(photos).as_posix() for row in rows] == [
        "0.png", "1.png", "2.png", "3.png", "empty.jpg",
        "line 2/cut.png", "line 2/ü 0.png", "line 2/ü 1.png", "line 2/ü 2.png", "line 2/ü 3.png", "text.jpg",
    ]  # fmt: skip
    verdicts = set()
    with Client(address) as client:
        for row in rows:
            if row["error_reason"] is not None:
                assert row["verdict"] is None
                assert row["overlay"] is None
                continue
            result = client.infer(
                row["path"],
                "belt",
                overlay=True,
                overlay_format=OverlayFormat.JPEG,
                overlay_max_side_px=1280,
                heatmap_scale=HeatmapScale.CALIBRATED,
            )
            assert_same(row, result)
            verdicts.add(row["verdict"])
            assert (row["overlay"] is not None) == result.anomaly.is_anomalous
            if row["overlay"] is not None:
                assert result.encoded_overlay is not None
                assert (tmp_path / "results" / row["overlay"]).read_bytes() == result.encoded_overlay.data
    assert verdicts == {"anomalous", "intact"}
    errors = {Path(row["path"]).name: (row["error_reason"], row["size_bytes"]) for row in rows if row["error"]}
    assert errors == {
        "empty.jpg": ("EMPTY_IMAGE", 0),
        "cut.png": ("UNDECODABLE_IMAGE", len(gray_png(100)) - 20),
        "text.jpg": ("UNDECODABLE_IMAGE", 8),
    }


def test_a_reference_comes_from_a_store_a_file_or_a_server(run: Run, store: Path, photos: Path, tmp_path: Path) -> None:
    assert run("reference", "export", "belt", "belt.patchserve")[0] == 0
    found = []
    for number, options in enumerate([("--store", store), ("--reference-file", "belt.patchserve"), ()]):
        code, stdout, stderr = run(
            "scan", photos, "--reference", "belt", *options, "--out", f"results{number}", "--output", "json"
        )
        assert code == 0, stderr
        document = json.loads(stdout)
        found.append({key: value for key, value in document.items() if key != "end_time"})
        assert document == json.loads((tmp_path / f"results{number}" / "summary.json").read_text())
    assert found[0] == found[1] == found[2]
    assert found[0]["images"] == 11


def test_images_results_and_reference_may_be_in_a_bucket(
    run: Run, photos: Path, tmp_path: Path, moto: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    store, source, out = (moto.url(f"scan/{name}") for name in ("store", "photos", "photos/results"))
    with closing(SharedReferenceStore(open_object_storage(store), DigestCache(tmp_path / "cache", 2**30))) as shared:
        shared.save(reference("belt", 100))
    with closing(open_object_storage(moto.url(""))) as bucket:
        for path in photos.rglob("*.[jp][pn]g"):
            if path.is_file():
                bucket.put(f"scan/photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    scan = ("scan", source, "--reference", "belt", "--store", store, "--out", out, "--overlays", "all")
    code, stdout, stderr = run(*scan)
    assert code == 0, stderr
    with open_results(out) as results:
        rows = rows_in(results)
        assert {row["path"].removeprefix(f"{source}/") for row in rows} == {
            path.relative_to(photos).as_posix() for path in photos.rglob("*.[jp][pn]g") if path.is_file()
        }
        assert sum(row["error"] is None for row in rows) == 8
        assert all(results.read(row["overlay"]) for row in rows if row["overlay"])
    code, stdout, _ = run(*scan)
    assert (code, "0 of them in this run" in stdout) == (0, True)
    code, _, stderr = run("scan", source, "--reference", "belt", "--store", f"{store}-2", "--out", f"{out}-2")
    assert (code, f'There is no reference "belt" in the store {store}-2' in stderr) == (1, True)


def test_sensitivity_regions_and_all_overlays_are_options(run: Run, photos: Path, tmp_path: Path) -> None:
    options = ("--sensitivity", 3, "--max-regions", 1, "--overlays", "all", "--overlay-format", "png")
    assert run("scan", photos, "--reference", "belt", "--out", "results", *options)[0] == 0
    rows = [row for row in rows_of(tmp_path / "results") if row["verdict"]]
    assert {len(row["regions"]) for row in rows} <= {0, 1}
    assert {row["raw_threshold"] for row in rows} == {float(np.float32(20 / 3))}
    for row in rows:
        with Image.open(tmp_path / "results" / row["overlay"]) as overlay:
            assert (overlay.format, overlay.size) == ("PNG", (row["width_px"], row["height_px"]))


def test_another_revision_is_refused_and_the_old_one_goes_on(
    run: Run, address: str, store: Path, photos: Path, tmp_path: Path
) -> None:
    with Client(address) as client:
        client.load_reference([gray_png(90)], "moving")
        scan = ("scan", photos, "--reference", "moving", "--out", "results")
        assert run(*scan, "--store", store)[0] == 0
        client.load_reference([gray_png(160)], "moving")
    code, _, stderr = run(*scan, "--store", store)
    assert (code, "are verdicts of revision" in stderr) == (1, True)
    assert run(*scan, "--reference-file", tmp_path / "results" / "reference.patchserve")[0] == 0
    before = rows_of(tmp_path / "results")
    assert run(*scan, "--store", store, "--restart")[0] == 0
    assert {row["revision"] for row in before}.isdisjoint(row["revision"] for row in rows_of(tmp_path / "results"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("missing",), 1, "There is no folder "),
        (("photos", "--reference", "other"), 1, 'There is no reference "other"'),
        (("photos", "--store", "nowhere"), 1, "There is no store folder "),
        (("photos", "--store", "nowhere", "--reference-file", "photos/0.png"), 2, "exclude each other"),
        (("photos", "--reference-file", "photos/0.png"), 1, "This is not an undamaged file of ExportReference"),
        (("photos", "--workers", 2), 2, "--workers needs --ray ADDRESS"),
        (("photos", "--output", "csv"), 2, "--output is text or json"),
        (("photos", "--sensitivity", 99), 2, "sensitivity must be"),
        (("photos", "--precision", "int3"), 2, "--precision is 'int3'; it must be one of"),
        (("photos", "--decode", "gpu"), 2, "--decode is 'gpu'; it must be one of"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, photos: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    options = () if "--reference" in arguments else ("--reference", "belt")
    failed, stdout, stderr = run("scan", *arguments, *options, "--out", "results")
    assert (failed, stdout) == (code, "")
    assert message in stderr
    assert len(stderr.splitlines()) == 1


def test_the_real_engine_gives_the_bits_of_the_server(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(composition, "open_detector", lambda _: detector)
    with in_process_server(detector=detector) as address, Client(address) as client:
        client.load_reference(sorted((SAMPLES / "train" / "good").iterdir())[:2], "parcels")
        scan = ["scan", str(SAMPLES / "test"), "--reference", "parcels", "--server", address, "--out", str(tmp_path)]
        result = CliRunner().invoke(app, scan)
        assert result.exit_code == 0, result.output
        rows = rows_of(tmp_path)
        assert len(rows) > 8
        for row in rows:
            assert_same(row, client.infer(row["path"], "parcels"))


def scan_command(photos: Path, store: Path, out: Path) -> list[str]:
    arguments = ["scan", photos, "--reference", "belt", "--store", store, "--out", out, "--overlays", "all"]
    return [sys.executable, scan_process.__file__, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("address")
def test_a_killed_scan_goes_on_where_it_was(store: Path, tmp_path: Path, number: signal.Signals) -> None:
    photos, out = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    for index in range(60):
        (photos / f"{index:02}.png").write_bytes(gray_png(80 + index))
    process = subprocess.Popen(
        scan_command(photos, store, out), env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while len(list(out.glob("verdicts/*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert "of 60 images are inspected. The same command goes on." in stderr
    published = {path.name: path.stat().st_mtime_ns for path in out.glob("verdicts/*.parquet")}
    assert 3 <= len(published) < 15
    done = subprocess.run(
        scan_command(photos, store, out), env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert [Path(row["path"]).name for row in rows] == [f"{index:02}.png" for index in range(60)]
    assert published.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("verdicts/*.parquet")}.items()
    assert all((out / row["overlay"]).stat().st_size for row in rows)
    assert list((out / ".unfinished").iterdir()) == []


@pytest.mark.usefixtures("address")
def test_a_cluster_finishes_a_scan_although_a_worker_is_killed(store: Path, tmp_path: Path) -> None:
    photos, out, sockets = tmp_path / "photos", tmp_path / "results", tempfile.mkdtemp(prefix="ray-")
    photos.mkdir()
    for index in range(120):
        (photos / f"{index:03}.png").write_bytes(gray_png(80 + index))
    program = [sys.executable, "-m", "e2e.scan_on_cluster", "worker", str(out), str(photos), "--reference", "belt"]
    quiet = {"RAY_TMPDIR": sockets, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [*program, "--store", str(store)],
        env=environment() | quiet,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    shutil.rmtree(sockets, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert "lost a worker" in done.stdout
    assert "120 images compared with belt" in done.stdout
    rows = rows_of(out)
    assert [Path(row["path"]).name for row in rows] == [f"{index:03}.png" for index in range(120)]
    assert all(row["verdict"] for row in rows)
