"""The committed sample parcels are what their script draws, and their masks mark the damage."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
PARCELS = SAMPLES / "parcels"
KINDS = ("crushed_corner", "puncture", "stain", "tear")
PAINTED, BENT = "test/tear/000", "test/crushed_corner/000"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SAMPLES))
    return importlib.import_module("draw_parcels")


@cache
def drawn(script: Any, name: str) -> Any:
    return script.draw(name)


def committed(name: str) -> NDArray[np.float32]:
    return np.asarray(Image.open(PARCELS / f"{name}.jpg"), np.float32)


def mask_path(name: str) -> Path:
    kind, number = name.split("/")[1:]
    return PARCELS / "ground_truth" / kind / f"{number}_mask.png"


def test_the_samples_have_the_layout_of_mvtec_ad(script: Any) -> None:
    images = {path.relative_to(PARCELS).with_suffix("").as_posix() for path in PARCELS.rglob("*.jpg")}
    assert images == set(script.SCENES)
    counts = {folder: len(list((PARCELS / folder).glob("*.jpg"))) for folder in ("train/good", "test/good")}
    assert counts == {"train/good": 8, "test/good": 4}
    for kind in KINDS:
        numbers = [path.stem for path in sorted((PARCELS / "test" / kind).iterdir())]
        masks = [path.name for path in sorted((PARCELS / "ground_truth" / kind).iterdir())]
        assert numbers == ["000", "001"]
        assert masks == [f"{number}_mask.png" for number in numbers]


def test_sample_files_are_small_and_have_one_size() -> None:
    files = [path for path in PARCELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    for path in files:
        with Image.open(path) as image:
            assert image.size == (640, 480), path
            assert image.mode == ("L" if path.suffix == ".png" else "RGB"), path


def test_masks_mark_a_part_of_the_image() -> None:
    for path in sorted((PARCELS / "ground_truth").rglob("*.png")):
        mask = np.asarray(Image.open(path))
        assert set(np.unique(mask)) == {0, 255}, path
        assert 0.002 < (mask > 0).mean() < 0.1, path


@pytest.mark.parametrize("name", [PAINTED, BENT])
def test_the_script_draws_the_committed_image(script: Any, name: str) -> None:
    image = drawn(script, name)
    difference = np.abs(image.pixels.astype(np.float32) - committed(name))
    assert difference.mean() < 2.5, "more than JPEG compression explains"
    mask = np.asarray(Image.open(mask_path(name)))
    assert (mask != image.mask).mean() < 1e-4


@pytest.mark.parametrize("name", [PAINTED, BENT])
def test_damage_changes_the_image_inside_its_mask_and_little_outside(script: Any, name: str) -> None:
    damaged = drawn(script, name)
    seed, _ = script.SCENES[name]
    intact = script.take_photograph(seed, None)
    assert not intact.mask.any()
    change = np.abs(damaged.pixels.astype(np.float32) - intact.pixels).mean(axis=2)
    marked = damaged.mask > 0
    assert np.median(change[marked]) > 10
    assert np.percentile(change[~marked], 99) < 8  # a crushed box also has another shadow
    strong = change > 30
    assert (strong & marked).sum() > 0.85 * strong.sum()
