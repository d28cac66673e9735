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
from patchserve_server.domain.reference_options import ReferenceViews

COUNTS = (1, 2, 4, 8, 16, 50)
DRAWS = 3
SETTINGS = (setting("NOTEBOOK", 224), setting("VERDICT", 320), setting("SUBSPACE", 320))
FEW = (1, 2, 4)
VIEWS = tuple(setting("VERDICT", 320).with_views(views) for views in ReferenceViews)


def measure(data: Path) -> None:
    """Profiles with few and many references, and what augmented views do with few."""
    measure_counts(data, "references", SETTINGS, COUNTS)
    measure_counts(data, "views", VIEWS, FEW)


def measure_counts(
    data: Path, name: str, settings: Sequence[Setting], counts: Sequence[int], draws: int = DRAWS
) -> None:
    """One table of ranks and one of false alarms, for each setting and number of references."""
    detector = remembering_detector()
    ranks = Results(name, f"Image AUROC, means of {draws} draws")
    alarms = Results(f"{name}_alarms", "False alarms, defects found at the threshold")
    for folder in SETS:
        dataset = read_dataset(data / folder)
        for each in settings:
            auroc, verdicts = {"set": folder, "setting": each.name}, {"set": folder, "setting": each.name}
            for count in counts:
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
