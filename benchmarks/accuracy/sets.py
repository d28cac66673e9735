"""Every labeled set with all its references, by profile and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accuracy.inspecting import inspect_pixels
from accuracy.remembered import remembering_detector
from accuracy.results import Results, image_cells, pixel_cells
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import read_dataset

SETS = ("magnetic_tile", "biscuit", "optics", "circuit")
SETTINGS = (
    setting("NOTEBOOK", 224),
    setting("PAPER", 224),
    setting("VERDICT", 224),
    setting("VERDICT", 320),
    setting("VERDICT", 448),
    setting("SUBSPACE", 320),
)


def measure(data: Path, settings: Sequence[Setting] = SETTINGS) -> None:
    results, detector = Results("sets", "All references"), remembering_detector()
    for folder in SETS:
        dataset = read_dataset(data / folder)
        for each in settings:
            inspected = inspect_pixels(detector, dataset.references, dataset.images, each.options)
            results.add({"set": folder, "setting": each.name, **image_cells(inspected), **pixel_cells(inspected)})
    results.finish()
