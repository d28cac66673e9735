"""The results of an evaluation as a JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from patchserve_client import ReferenceInfo, ServerInfo
from patchserve_client.evaluation.dataset import Dataset
from patchserve_client.evaluation.image_metrics import ImageMetrics, auroc, image_metrics
from patchserve_client.evaluation.intervals import Interval, intervals
from patchserve_client.evaluation.run import Findings, Verdict

PIXEL_METRICS = ("pixel_auroc", "aupro")
METRICS = (
    "false_alarm_rate",
    "found_rate",
    "balanced_accuracy",
    "best_balanced_accuracy",
    "f1",
    "image_auroc",
    "average_precision",
    *PIXEL_METRICS,
)
DAMAGE_METRIC = "damage_percentage_auroc"


def report(
    dataset: Dataset, reference: ReferenceInfo, server: ServerInfo, findings: Findings, *, damage: bool = False
) -> dict[str, Any]:
    """METRICS first (None: not defined), then their 95 % intervals, then the data behind them.

    Everything except times can be written as JSON. With `damage`, it has the figures of the notebook's measure, too.
    """
    verdicts = findings.verdicts
    metrics = _image_metrics(verdicts)
    best = metrics.best
    values = {
        **dataclasses.asdict(metrics),
        "best_balanced_accuracy": None if best is None else best.balanced_accuracy,
        "pixel_auroc": findings.pixels.auroc(),
        "aupro": findings.pixels.aupro(),
    }
    names = (*METRICS, DAMAGE_METRIC) if damage else METRICS
    return {
        **{name: values[name] for name in names},
        "intervals": _intervals(verdicts),
        "counts": {
            "reference_images": reference.image_count,
            "intact": sum(verdict.image.defect is None for verdict in verdicts),
            "defective": sum(verdict.image.defect is not None for verdict in verdicts),
            "with_mask": sum(verdict.image.mask_path is not None for verdict in verdicts),
            "damaged_regions": findings.pixels.region_count,
            "failed": len(findings.failed),
        },
        "defects": _defects(verdicts),
        "thresholds": {
            "raw_score": reference.threshold,
            "best": None if best is None else {"ratio": best.ratio, **dataclasses.asdict(best)},
        },
        "dataset": str(dataset.root),
        "reference": dataclasses.asdict(reference),
        "server": dataclasses.asdict(server),
        "notes": [*dataset.notes, *_notes(values, verdicts)],
        "images": [_image_entry(verdict, damage=damage) for verdict in verdicts],
        "failed": [{"file": image.name, "error": str(error)} for image, error in findings.failed],
    }


def _image_metrics(verdicts: list[Verdict]) -> ImageMetrics:
    return image_metrics(
        np.array([verdict.image.defect is not None for verdict in verdicts]),
        np.array([verdict.anomaly.ratio for verdict in verdicts]),
        np.array([verdict.damage_percentage for verdict in verdicts]),
    )


def _intervals(verdicts: list[Verdict]) -> dict[str, Interval | None]:
    return intervals(
        np.array([verdict.image.defect is not None for verdict in verdicts]),
        np.array([verdict.anomaly.ratio for verdict in verdicts]),
    )


def _defects(verdicts: list[Verdict]) -> dict[str, Any]:
    """For each kind of defect: the number of images, how many were found, and the AUROC against all intact images."""
    ratios: dict[str | None, list[float]] = {}
    for verdict in verdicts:
        ratios.setdefault(verdict.image.defect, []).append(verdict.anomaly.ratio)
    intact = np.array(ratios.pop(None, []))
    found_defects = [verdict.image.defect for verdict in verdicts if verdict.anomaly.is_anomalous]
    return {
        str(defect): {
            "images": len(defect_ratios),
            "found": found_defects.count(defect),
            "image_auroc": auroc(intact, np.array(defect_ratios)),
        }
        for defect, defect_ratios in ratios.items()
    }


def _notes(values: dict[str, Any], verdicts: list[Verdict]) -> Iterator[str]:
    defective = sum(verdict.image.defect is not None for verdict in verdicts)
    if not defective:
        yield "There are no defective test images: only the false alarms are measured."
    elif defective == len(verdicts):
        yield "There are no intact test images: the false alarms and the ranking of images are not measured."
    if defective and set(PIXEL_METRICS) & {name for name in METRICS if values[name] is None}:
        yield "There is no mask of any damage: how well pixels are found is not measured."


def _image_entry(verdict: Verdict, *, damage: bool) -> dict[str, Any]:
    entry = {
        "file": verdict.image.name,
        "defect": verdict.image.defect,
        "is_anomalous": verdict.anomaly.is_anomalous,
        "ratio": verdict.anomaly.ratio,
        "score": verdict.anomaly.score,
        "raw_score": verdict.anomaly.raw_score,
    }
    return {**entry, "damage_percentage": verdict.damage_percentage} if damage else entry
