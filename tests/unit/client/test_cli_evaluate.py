"""`patchserve evaluate` against a scripted server. To that server red images are anomalous."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault, bad_image
from fakes.responses import png, reference
from fakes.terminal import Run
from PIL import Image

from patchserve_client import Client
from patchserve_client.cli._evaluation_text import advice
from patchserve_client.evaluation import inspect, loaded_reference, read_dataset
from patchserve_client.evaluation.best_threshold import BestThreshold

METRICS = [
    "false_alarm_rate",
    "found_rate",
    "balanced_accuracy",
    "best_balanced_accuracy",
    "f1",
    "image_auroc",
    "average_precision",
    "pixel_auroc",
    "aupro",
]


@pytest.fixture
def run_evaluate(run: Run) -> Run:
    """Runs `patchserve evaluate`; stderr is one line without the frame of a usage error."""

    def invoke(*arguments: object) -> tuple[int, str, str]:
        code, stdout, stderr = run("evaluate", *arguments)
        return code, stdout, " ".join(stderr.replace("│", " ").split())

    return invoke


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three intact and three damaged images, with one wrong verdict each; two masks."""
    colors = {
        "train/good/0": "green",
        "train/good/1": "green",
        "train/good/2": "blue",
        "test/good/a": "green",
        "test/good/b": "red",
        "test/good/c": "blue",
        "test/crack/d": "red",
        "test/crack/e": "green",
        "test/dent/f": "red",
    }
    data = tmp_path / "data"
    for name, color in colors.items():
        path = data / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(color, (32, 24)))
    (data / "ground_truth/crack").mkdir(parents=True)
    for name in "de":
        mask = Image.new("L", (32, 24))
        mask.paste(255, (20, 14, 30, 22))  # the fake's score map rises toward the lower right
        mask.save(data / f"ground_truth/crack/{name}_mask.png")
    return data


def measured(run_evaluate: Run, *arguments: object) -> tuple[dict[str, Any], str, str]:
    """The JSON document of a run, and the text and the errors of another one."""
    json_code, document, _ = run_evaluate(*arguments, "--output=json")
    code, stdout, stderr = run_evaluate(*arguments)
    found: dict[str, Any] = json.loads(document)
    assert code == json_code == (1 if found["failed"] else 0)
    return found, stdout, stderr


def test_a_run_writes_and_prints_all_numbers(run_evaluate: Run, fake: FakeServer, root: Path, tmp_path: Path) -> None:
    found, stdout, stderr = measured(run_evaluate, root)
    assert list(found)[: len(METRICS) + 2] == [*METRICS, "intervals", "counts"]
    third = pytest.approx(1 / 3)
    assert found["image_auroc"] == pytest.approx((2 / 3 * 2 / 3) + (2 / 3 * 1 / 3 + 1 / 3 * 2 / 3) / 2)
    assert found["f1"] == found["balanced_accuracy"] == found["best_balanced_accuracy"] == pytest.approx(2 / 3)
    assert (found["false_alarm_rate"], found["found_rate"]) == (third, pytest.approx(2 / 3))
    assert 0.7 < found["pixel_auroc"] < 1
    assert 0.3 < found["aupro"] < 1
    assert found["counts"] == {
        "reference_images": 3,
        "intact": 3,
        "defective": 3,
        "with_mask": 2,
        "damaged_regions": 2,
        "failed": 0,
    }
    assert found["defects"]["crack"] == {"images": 2, "found": 1, "image_auroc": pytest.approx(7 / 12)}
    assert found["defects"]["dent"] == {"images": 1, "found": 1, "image_auroc": pytest.approx(5 / 6)}
    assert found["thresholds"] == {
        "raw_score": 10.5,
        "best": {
            "ratio": 1.0,
            "sensitivity": 1.0,
            "balanced_accuracy": pytest.approx(2 / 3),
            "false_alarm_rate": third,
            "found_rate": pytest.approx(2 / 3),
        },
    }
    assert found["server"]["backbone"] == "fake"
    assert found["reference"]["revision"] == fake.requests["InferStream"][0].expected_revision
    assert [image["file"] for image in found["images"]][:2] == ["test/crack/d.png", "test/crack/e.png"]
    assert "1 of 1 image in test/dent without a mask" in stderr
    rows = [" ".join(line.split()) for line in stdout.splitlines()]
    assert "false alarms 33.3 % 0.8 to 90.6 % 1 of 3 intact images are called anomalous" in rows
    assert "defects found 66.7 % 9.4 to 99.2 % 2 of 3 defective images are called anomalous" in rows
    low, high = found["intervals"]["image_auroc"]
    assert f"image AUROC {found['image_auroc']:.3f} {low:.3f} to {high:.3f} defective images rank" in " ".join(rows)
    assert "crack 1 of 2 0.583" in rows
    assert rows[-1] == "No other threshold judges these images better."
    assert not re.search("damage AUROC|[a-z]_[a-z]", stdout.replace(str(root), "")), "words, not names of fields"
    assert "\x1b" not in stdout


def test_the_notebooks_damage_is_measured_on_request_only(run_evaluate: Run, root: Path, tmp_path: Path) -> None:
    for damage in ((), ("--damage",)):
        found, stdout, _ = measured(run_evaluate, root, *damage)
        assert found.get("damage_percentage_auroc") == (0.5 if damage else None)
        assert ("damage_percentage" in found["images"][0]) == ("damage AUROC" in stdout) == bool(damage)


BEST = (
    "The best threshold for these images is 0.962 x: 5.0 % false alarms, 85.0 % of the defects found. "
    "On other images, expect a little less."
)


@pytest.mark.parametrize(
    ("best", "keep", "lines"),
    [
        (None, True, []),
        (BestThreshold(1.0, 0.9, 0.1, 0.9), True, ["No other threshold judges these images better."]),
        (
            BestThreshold(1.04, 0.9, 0.05, 0.85),
            True,
            [
                BEST,
                "To use it: patchserve reference tune tiles --sensitivity 1.04",
            ],
        ),
    ],
)
def test_the_best_threshold_is_told_as_the_command_that_sets_it(
    best: BestThreshold | None, keep: bool, lines: list[str]
) -> None:
    numbers = {"thresholds": {"best": best and {"ratio": best.ratio, **dataclasses.asdict(best)}}}
    assert list(advice(numbers, "tiles", keep=keep)) == lines
    if len(lines) == 2:
        assert list(advice(numbers, "tiles", keep=False))[1].startswith(
            "To use it, evaluate with --keep, then: patchserve"
        )


def test_the_reference_is_new_and_deleted_afterwards(run_evaluate: Run, fake: FakeServer, root: Path) -> None:
    fake.references["default"] = reference("default", 1)
    assert run_evaluate(root)[0] == 0
    assert set(fake.references) == {"default"}
    assert run_evaluate(root, "--keep", "--reference", "tiles")[0] == 0
    assert set(fake.references) == {"default", "tiles"}
    assert [request.reference_id for request in fake.requests["LoadReference"]] == ["evaluation", "tiles"]


@pytest.mark.parametrize("keep", [(), ("--keep",)])
def test_an_existing_reference_is_not_changed(
    run_evaluate: Run, fake: FakeServer, root: Path, keep: tuple[str, ...]
) -> None:
    fake.references["belt"] = before = reference("belt", 1)
    code, stdout, stderr = run_evaluate(root, "--reference", "belt", *keep)
    assert (code, stdout) == (2, "")
    assert 'The server already has a reference "belt". Choose another' in stderr
    assert "patchserve reference delete belt" in stderr
    assert fake.references == {"belt": before}
    assert not fake.requests["LoadReference"]


def test_the_reference_is_loaded_with_the_options(run_evaluate: Run, fake: FakeServer, root: Path) -> None:
    run_evaluate(root, "--references", 2, "--profile", "paper", "--coreset-ratio", 0.25)
    run_evaluate(root, "--references", 1, "--seed", 3, "--coreset-max-patches", 99, "--search-radius", 0.2)
    first, second = fake.requests["LoadReference"]
    folder = root / "train/good"
    assert list(first.images) == [(folder / "0.png").read_bytes(), (folder / "1.png").read_bytes()]
    assert (first.profile, first.coreset.ratio) == (2, 0.25)
    assert (len(second.images), second.profile, second.coreset.max_patches) == (1, 3, 99)
    assert (first.HasField("search_radius"), second.search_radius) == (False, 0.2)


def test_an_image_that_fails_is_named_and_the_others_are_measured(
    run_evaluate: Run, fake: FakeServer, root: Path, tmp_path: Path
) -> None:
    fake.frame_faults[1] = bad_image()
    found, stdout, stderr = measured(run_evaluate, root)
    assert "Error: test/crack/e.png: The bytes are not an image." in stderr
    assert (found["counts"]["defective"], found["counts"]["failed"]) == (2, 1)
    assert found["image_auroc"] == pytest.approx(5 / 6)
    assert [failure["file"] for failure in found["failed"]] == ["test/crack/e.png"]
    assert "image AUROC" in stdout


def test_there_are_no_numbers_if_every_image_fails(
    run_evaluate: Run, fake: FakeServer, root: Path, tmp_path: Path
) -> None:
    fake.frame_faults.update(dict.fromkeys(range(6), bad_image()))
    for as_json in ((), ("--output=json",)):
        code, stdout, stderr = run_evaluate(root, *as_json)
        assert (code, stdout) == (1, "")
        assert "The bytes are not an image." in stderr
    assert not fake.references


def test_a_stream_that_ends_early_ends_the_run_and_leaves_no_reference(
    run_evaluate: Run, fake: FakeServer, root: Path
) -> None:
    fake.stream_end = (2, Fault(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.", "DRAINING"))
    code, stdout, stderr = run_evaluate(root)
    assert (code, stdout) == (1, "")
    assert "The server is shutting down." in stderr
    assert not fake.references


def test_an_interrupt_leaves_no_reference(fake: FakeServer, root: Path) -> None:
    def interrupt() -> None:
        assert set(fake.references) == {"evaluation"}
        raise KeyboardInterrupt

    dataset = read_dataset(root)
    with (
        Client(fake.address) as client,
        pytest.raises(KeyboardInterrupt),
        loaded_reference(client, dataset.references, "evaluation") as loaded,
    ):
        inspect(client, dataset.images, loaded, step=interrupt)
    assert not fake.references


def test_a_rejected_reference_image_is_named(run_evaluate: Run, fake: FakeServer, root: Path) -> None:
    (root / "train/good/1.png").write_bytes(b"no image")
    code, _, stderr = run_evaluate(root)
    assert code == 1
    assert f"{root / 'train/good/1.png'}: The bytes are not an image. Nothing was loaded." in stderr


@pytest.mark.parametrize(
    ("folder", "undefined"),
    [
        ("test/good", ["image_auroc", "average_precision", "false_alarm_rate"]),
        ("test/crack", ["pixel_auroc", "aupro"]),  # the dent has no mask
    ],
)
def test_metrics_that_are_not_defined_are_null_and_explained(
    run_evaluate: Run, root: Path, tmp_path: Path, folder: str, undefined: list[str]
) -> None:
    for path in (root / folder).iterdir():
        path.unlink()
    found, stdout, stderr = measured(run_evaluate, root, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out/numbers.json").read_text())["image_auroc"] == found["image_auroc"]
    assert [found[name] for name in undefined] == [None] * len(undefined)
    assert "measured" in stderr
    assert re.search(rf"^{undefined[0].replace('_', ' ').replace('auroc', 'AUROC')} +- ", stdout, re.MULTILINE)
    assert (tmp_path / "out/roc.png").stat().st_size


def test_plots_are_images_with_calibrated_overlays(
    run_evaluate: Run, fake: FakeServer, root: Path, tmp_path: Path
) -> None:
    code, _, _ = run_evaluate(root, "--out", tmp_path / "out")
    assert code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "numbers.json",
        "roc.png",
        "scores.png",
        "mistakes.png",
    }
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as drawn:
            assert min(drawn.size) > 300
            assert len(drawn.convert("RGB").getcolors(2**24) or []) > 10
    asked = fake.requests["Infer"]
    assert {request.output.heatmap_scale for request in asked} == {2}
    images = [root / "test" / name for name in ("good/b.png", "crack/e.png")]
    assert [request.image for request in asked[:2]] == [path.read_bytes() for path in images]  # mistakes first


def test_wrong_usage_exits_with_2(run_evaluate: Run, root: Path, tmp_path: Path) -> None:
    for arguments, complaint in (
        ((root / "test",), "has no folder train/good"),
        ((root, "--references", 4), "has 3 images, not 4"),
        ((root, "--seed", 1), "set both"),
        ((root, "--coreset-ratio", 0.1, "--coreset-max-patches", 99), "exclude each other"),
        ((root, "--coreset-ratio", 0), "above 0"),
        ((root, "--search-radius", 2), "above 0 and at most 1"),
        ((tmp_path / "nowhere",), "There is no folder"),
    ):
        code, _, stderr = run_evaluate(*arguments)
        assert code == 2
        assert complaint in stderr


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib", "scipy"])
def test_a_missing_package_of_the_extra_is_named(
    run_evaluate: Run, root: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("patchserve_client.evaluation", "patchserve_client.cli._evaluation")):
            monkeypatch.delitem(sys.modules, name)
        elif name.partition(".")[0] == missing:
            monkeypatch.setitem(sys.modules, name, None)
    code, _, stderr = run_evaluate(root)
    assert code == 1
    assert f'Evaluation requires {missing}: `pip install ".[evaluate]"` in a checkout of patchserve.' in stderr


def test_other_commands_do_not_load_the_extra() -> None:
    code = (
        "import sys, patchserve_client.cli; "
        "print([name for name in ('sklearn', 'scipy', 'matplotlib', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
