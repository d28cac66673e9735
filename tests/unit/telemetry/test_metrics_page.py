"""docs/metrics.md is the table of metrics."""

from __future__ import annotations

import re
from pathlib import Path

from patchserve_server.telemetry.metrics.definitions import METRICS, Kind, Metric

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def row_of(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    unit = metric.unit or ("1" if metric.kind is Kind.COUNTER else "")
    return f"| `{metric.full_name}` | {metric.kind} | {labels} | {unit} | {metric.tells} | {metric.advice} |".replace(
        "|  |", "| |"
    ).replace("|  |", "| |")


def test_the_page_lists_every_metric_with_its_labels_its_unit_what_it_tells_and_what_to_do() -> None:
    written = re.findall(r"^\| `patchserve_.+\|$", PAGE, re.MULTILINE)
    assert written == [row_of(metric) for metric in METRICS]


def test_every_metric_that_the_page_names_exists() -> None:
    named = set(re.findall(r"\bpatchserve_[a-z_]+", PAGE))
    endings = ("", "_bucket", "_sum", "_count")
    known = {metric.full_name + ending for metric in METRICS for ending in endings}
    assert named <= known
