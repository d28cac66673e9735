"""Image AUROC against the number of references: means over random draws of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from accuracy.inspecting import drawn_references, inspect
from accuracy.remembered import remembering_detector
from accuracy.results import Results
from accuracy.sets import SETS
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import read_dataset

COUNTS = (1, 2, 4, 8, 16, 50)
DRAWS = 3
SETTINGS = (setting("NOTEBOOK", 224), setting("VERDICT", 320), setting("SUBSPACE", 320))


def measure(data: Path, settings: Sequence[Setting] = SETTINGS, draws: int = DRAWS) -> None:
    detector = remembering_detector()
    ranks = Results("references", f"Image AUROC, means of {draws} draws")
    alarms = Results("references_alarms", "False alarms, defects found at the threshold")
    for folder in SETS:
        dataset = read_dataset(data / folder)
        for each in settings:
            auroc, verdicts = {"set": folder, "setting": each.name}, {"set": folder, "setting": each.name}
            for count in COUNTS:
                if count > len(dataset.references):
                    auroc[str(count)] = verdicts[str(count)] = ""
                    continue
                measured = [
                    inspect(detector, references, dataset.images, each.options).metrics
                    for references in drawn_references(dataset.references, count, draws)
                ]
                auroc[str(count)] = f"{fmean(metrics.image_auroc or 0 for metrics in measured):.3f}"
                rates = (
                    fmean(getattr(metrics, rate) or 0 for metrics in measured)
                    for rate in ("false_alarm_rate", "found_rate")
                )
                verdicts[str(count)] = ", ".join(f"{rate:.0%}" for rate in rates)
            ranks.add(auroc)
            alarms.add(verdicts)
    ranks.finish()
    alarms.finish()
