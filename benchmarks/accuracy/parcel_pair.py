"""Two photographs of parcels, and the sample parcels: ratios to the threshold with one reference and with all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accuracy.inspecting import inspect, load, model_inputs
from accuracy.remembered import remembering_detector
from accuracy.results import Results
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import read_dataset

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "parcels"
SETTINGS = (setting("NOTEBOOK", 224), setting("PAPER", 224), setting("VERDICT", 320), setting("SUBSPACE", 320))


def measure(data: Path, settings: Sequence[Setting] = SETTINGS) -> None:
    detector, dataset = remembering_detector(), read_dataset(SAMPLES)
    results = Results("parcels", "Ratios to the threshold")
    for each in settings:
        row = {"setting": each.name}
        scorer = load(detector, [data / "parcel" / "good.jpg"], each.options)
        inputs = model_inputs(
            [data / "parcel" / f"{name}.jpg" for name in ("good", "damage")], scorer.model.bank.input_shape
        )
        threshold = scorer.model.calibration.image_threshold
        for name, raw in zip(("good", "damage"), scorer.score(inputs)[0], strict=True):
            row[f"photograph, {name}"] = f"{raw.image_score / threshold:.2f}"
        for count in (1, len(dataset.references)):
            inspected = inspect(detector, dataset.references[:count], dataset.images, each.options)
            intact, damaged = (inspected.ratios[inspected.defective == kind] for kind in (False, True))
            row[f"samples, {count} ref.: intact at most"] = f"{intact.max():.2f}"
            row[f"damaged at least, {count} ref."] = f"{damaged.min():.2f}"
        results.add(row)
    results.finish()
