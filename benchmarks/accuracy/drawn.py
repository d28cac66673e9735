"""Drawn parcels at 2048 px with damage of 8 to 40 px: found at no false alarm, by size of the input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accuracy.inspecting import Inspected, inspect
from accuracy.remembered import remembering_detector
from accuracy.results import OUT, Results, image_cells
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import Dataset, read_dataset

DRAWN = OUT / "small_damage"
SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "draw_small_damage.py"
RADIUS = 0.03
REFERENCES = (12, 30)
SETTINGS = (
    setting("VERDICT", 320, keep_aspect=True),
    setting("VERDICT", 1024, keep_aspect=True).with_radius(RADIUS),
    setting("VERDICT", 2048, tile_px=512, keep_aspect=True).with_radius(RADIUS),
)


def drawn_parcels(folder: Path = DRAWN) -> Dataset:
    """The drawn parcels; draws them if they are not there, which takes some minutes."""
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True)
        (folder / "complete").touch()
    return read_dataset(folder)


def found_without_false_alarm(inspected: Inspected) -> int:
    """How many damaged images score above every intact one."""
    highest = inspected.ratios[~inspected.defective].max()
    return int(np.sum(inspected.ratios[inspected.defective] > highest))


def measure(_data: Path, settings: Sequence[Setting] = SETTINGS) -> None:
    dataset, detector = drawn_parcels(), remembering_detector()
    results = Results("drawn", "Drawn parcels")
    for each in settings:
        for count in REFERENCES:
            inspected = inspect(detector, dataset.references[:count], dataset.images, each.options)
            above = f"{found_without_false_alarm(inspected)} of {inspected.defective.sum()}"
            row = {"setting": each.name, "references": str(count), "above all intact": above}
            results.add({**row, **image_cells(inspected)})
    results.finish()
