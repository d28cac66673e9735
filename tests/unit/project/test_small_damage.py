"""The large drawn parcels: their damage is small, visible, and exactly where the masks say."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
SIDE_RANGE_PX = (8, 40)
STAIN = 6003


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SAMPLES))
    return importlib.import_module("draw_small_damage")


def longer_side_px(mask: NDArray[np.bool_]) -> int:
    rows, columns = np.nonzero(mask)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def test_there_are_as_many_parcels_as_the_documentation_says(script: Any) -> None:
    assert (len(script.REFERENCES), len(script.TESTS)) == (30, 40)
    kinds = [script.small_damage(seed)[0] for seed in script.TESTS]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("dent", "scratch", "tear", "stain", "puncture"), 8
    )


def test_all_damage_is_8_to_40_px_in_the_photographs(script: Any) -> None:
    scene, light, raster = (importlib.import_module(f"parcel_scene.{name}") for name in ("scene", "light", "raster"))
    sheets = importlib.import_module("parcel_scene.sheet")
    mesh, camera = script._plain_mesh(), scene.LARGE_VIEW.camera()
    visible = raster.rasterize(camera, mesh)
    spots_mm = visible.interpolate(mesh.sheet_mm)
    sides_px = []
    for seed in script.TESTS:
        shape = sheets.SHAPE
        sheet = sheets.Sheet(np.zeros((*shape, 3), np.float32), *(np.zeros(shape, np.float32) for _ in range(3)))
        script.small_damage(seed)[1].paint(sheet)
        mask = np.zeros((camera.height_px, camera.width_px), np.bool_)
        mask[visible.inside] = light.sample(sheet.damage, spots_mm) > 0.5
        sides_px.append(longer_side_px(mask))
    assert SIDE_RANGE_PX[0] <= min(sides_px)
    assert max(sides_px) <= SIDE_RANGE_PX[1]
    assert min(sides_px) < 14, "some are as small as promised"
    assert max(sides_px) > 30, "and some as large"


def test_a_damaged_parcel_differs_from_the_intact_one_inside_its_mask_only(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = importlib.import_module("parcel_scene.scene").View(
        1024, 768, points=1, tape_folds=0
    )  # a quarter of the time
    monkeypatch.setattr(script, "LARGE_VIEW", view)
    assert script.draw_test(tmp_path, STAIN) == f"test/stain/{STAIN}"
    intact, damaged = (
        np.asarray(Image.open(tmp_path / "test" / kind / f"{STAIN}.jpg"), np.float32) for kind in ("good", "stain")
    )
    assert intact.shape == (768, 1024, 3)
    mask = np.asarray(Image.open(tmp_path / "ground_truth" / "stain" / f"{STAIN}_mask.png")) > 0
    assert ndimage.label(mask)[1] == 1
    assert SIDE_RANGE_PX[0] <= longer_side_px(mask) <= SIDE_RANGE_PX[1]
    change = np.abs(damaged - intact).mean(axis=2)
    assert np.median(change[mask]) > 15
    assert np.percentile(change[~mask], 99) < 8, "more than the noise of the sensor"
    assert not (tmp_path / "ground_truth" / "good").exists()
