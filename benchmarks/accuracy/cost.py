"""Time and memory against the size of the input: one image, a bank of eight references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from timing import best_ms

from accuracy.inspecting import load, model_inputs
from accuracy.remembered import plain_detector
from accuracy.results import Results
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import read_dataset

REPEATS = 5
SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "parcels"
SETTINGS = (
    *(setting("VERDICT", side_px) for side_px in (224, 320, 448, 640, 1024)),
    setting("VERDICT", 1024).with_radius(0.05),
    setting("VERDICT", 2048, tile_px=512).with_radius(0.05),
)


def measure(_data: Path, settings: Sequence[Setting] = SETTINGS) -> None:
    """All settings take turns, so that a slow minute of the machine slows all of them."""
    detector, dataset = plain_detector(), read_dataset(SAMPLES)
    results = Results("cost", f"One image, {len(dataset.references)} references, best of {REPEATS}")
    scorers = {each.name: load(detector, dataset.references, each.options) for each in settings}
    images = {
        name: model_inputs([dataset.images[0].path], scorer.model.bank.input_shape) for name, scorer in scorers.items()
    }
    times_ms = best_ms(REPEATS, {name: partial(scorer.score, images[name]) for name, scorer in scorers.items()})
    base_ms = times_ms[settings[0].name]
    for name, scorer in scorers.items():
        bank = scorer.model.bank
        row = {
            "setting": name,
            "patches an image": f"{bank.vector_count // len(bank.inputs):,}",
            "ms an image": f"{times_ms[name]:.0f}",
            "times the first": f"{times_ms[name] / base_ms:.1f}",
            "bank, MiB": f"{bank.nbytes / 2**20:.1f}",
            "in memory, MiB": f"{scorer.nbytes / 2**20:.1f}",
        }
        results.add(row)
    results.finish()
