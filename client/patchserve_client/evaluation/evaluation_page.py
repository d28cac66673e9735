"""The report of an evaluation as a page of HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from patchserve_client._counted import counted
from patchserve_client._device_text import device_text
from patchserve_client.evaluation.best_threshold import best_threshold
from patchserve_client.evaluation.dataset import Dataset
from patchserve_client.evaluation.html_page import Page, Plot, Row, Table
from patchserve_client.evaluation.measures import TITLES, measures
from patchserve_client.evaluation.number_text import share_text
from patchserve_client.evaluation.plots import draw_histogram, draw_roc
from patchserve_client.evaluation.run import Verdict
from patchserve_client.evaluation.verdict_pictures import VerdictPicture

_MEASURES_NOTE = "95 % interval: where the measure may be for all images of this kind, not only for these."


def evaluation_page(
    dataset: Dataset,
    numbers: dict[str, Any],
    advice: Sequence[str],
    verdicts: Sequence[Verdict],
    pictures: Sequence[VerdictPicture],
) -> Page:
    """The page of a report: `numbers` are those of `report`, `advice` says what to do about the threshold."""
    counts, reference, server = numbers["counts"], numbers["reference"], numbers["server"]
    defects = [
        Row.of(defect, f"{row['found']} of {row['images']}", share_text(row["image_auroc"]))
        for defect, row in numbers["defects"].items()
    ]
    tables = [Table("Measures", TITLES, [Row.of(*cells) for cells in measures(numbers)], note=_MEASURES_NOTE)]
    if defects:
        tables.append(Table("Kinds of defects", ("kind of defect", "found", "image AUROC"), defects))
    test_images = f"{counts['intact']} intact and {counted(counts['defective'], 'defective test image')}"
    device = device_text(server["device"], server["decode"])
    backbone = f"backbone {reference['backbone']}, {reference['precision']}, {device}"
    mistakes = sum(not verdict.is_correct for verdict in verdicts)
    wrong = f"{mistakes} of {counted(len(verdicts), 'verdict')} {'is' if mistakes == 1 else 'are'} wrong."
    return Page(
        title=f"How good are the verdicts on {dataset.root.name}?",
        facts=[
            f"{counted(counts['reference_images'], 'reference image')}; {test_images} in {dataset.root}",
            f"Profile {reference['profile'] or 'unknown'}; patchserve {server['version']}, {backbone}",
        ],
        conclusion=[
            wrong,
            *advice,
        ],
        command="",
        tables=tables,
        plots=_plots(verdicts),
        pictures_title="The worst verdicts" if mistakes else "The verdicts closest to the threshold",
        pictures=pictures,
        notes=[*numbers["notes"], *(f"{failure['file']}: {failure['error']}" for failure in numbers["failed"])],
    )


def _plots(verdicts: Sequence[Verdict]) -> list[Plot]:
    defective = np.array([verdict.image.defect is not None for verdict in verdicts])
    ratios = np.array([verdict.anomaly.ratio for verdict in verdicts])
    best = best_threshold(defective, ratios) if defective.any() and not defective.all() else None
    roc, histogram = io.BytesIO(), io.BytesIO()
    draw_histogram(defective, ratios, best, histogram)
    draw_roc(defective, ratios, best, roc)
    return [
        Plot(histogram.getvalue(), "Histogram: how many intact and how many defective images have which ratio."),
        Plot(roc.getvalue(), "ROC curve: how many defects other thresholds would find, with how many false alarms."),
    ]
