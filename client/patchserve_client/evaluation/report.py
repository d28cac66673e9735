"""The results of an evaluation as a JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from patchserve_client import ReferenceInfo, ServerInfo
from patchserve_client.evaluation.dataset import Dataset
from patchserve_client.evaluation.image_metrics import ImageMetrics, auroc, image_metrics
from patchserve_client.evaluation.run import Findings, Verdict

PIXEL_METRICS = ("pixel_auroc", "aupro")
METRICS = (
    "image_auroc",
    "average_precision",
    "f1",
    "balanced_accuracy",
    "best_balanced_accuracy",
    "false_alarm_rate",
    *PIXEL_METRICS,
    "damage_percentage_auroc",
)


def report(dataset: Dataset, reference: ReferenceInfo, server: ServerInfo, findings: Findings) -> dict[str, Any]:
    """METRICS first (None: not defined), then the data behind them. Everything except times can be written as JSON."""
    verdicts = findings.verdicts
    metrics = _image_metrics(verdicts)
    values = {
        **dataclasses.asdict(metrics),
        "pixel_auroc": findings.pixels.auroc(),
        "aupro": findings.pixels.aupro(),
    }
    return {
        **{name: values[name] for name in METRICS},
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
            "score": 0.5,
            "best_score": metrics.best_threshold,
            "raw_score": reference.threshold,
            "raw_patch_score": reference.calibration.patch_threshold,
        },
        "dataset": str(dataset.root),
        "reference": dataclasses.asdict(reference),
        "server": dataclasses.asdict(server),
        "notes": [*dataset.notes, *_notes(values, verdicts)],
        "images": [_image_entry(verdict) for verdict in verdicts],
        "failed": [{"file": image.name, "error": str(error)} for image, error in findings.failed],
    }


def _image_metrics(verdicts: list[Verdict]) -> ImageMetrics:
    return image_metrics(
        np.array([verdict.image.defect is not None for verdict in verdicts]),
        np.array([verdict.anomaly.score for verdict in verdicts]),
        np.array([verdict.anomaly.is_anomalous for verdict in verdicts]),
        np.array([verdict.damage_percentage for verdict in verdicts]),
    )


def _defects(verdicts: list[Verdict]) -> dict[str, Any]:
    """For each kind of defect: the number of images, how many were found, and the AUROC against all intact images."""
    scores: dict[str | None, list[float]] = {}
    for verdict in verdicts:
        scores.setdefault(verdict.image.defect, []).append(verdict.anomaly.score)
    intact = np.array(scores.pop(None, []))
    found_defects = [verdict.image.defect for verdict in verdicts if verdict.anomaly.is_anomalous]
    return {
        str(defect): {
            "images": len(defect_scores),
            "found": found_defects.count(defect),
            "image_auroc": auroc(intact, np.array(defect_scores)),
        }
        for defect, defect_scores in scores.items()
    }


def _notes(values: dict[str, Any], verdicts: list[Verdict]) -> Iterator[str]:
    missing = [name for name in METRICS if values[name] is None]
    defective = sum(verdict.image.defect is not None for verdict in verdicts)
    if not defective:
        yield f"There are no defective test images: {', '.join(missing)} are not defined."
        return
    if defective == len(verdicts):
        image_metric_names = [name for name in missing if name not in PIXEL_METRICS]
        yield f"There are no intact test images: {', '.join(image_metric_names)} are not defined."
    if set(PIXEL_METRICS) & set(missing):
        yield f"There is no mask of any damage: {' and '.join(PIXEL_METRICS)} are not defined."


def _image_entry(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.image.name,
        "defect": verdict.image.defect,
        "score": verdict.anomaly.score,
        "raw_score": verdict.anomaly.raw_score,
        "is_anomalous": verdict.anomaly.is_anomalous,
        "damage_percentage": verdict.damage_percentage,
    }
