"""The alert rules and the dashboard of deploy/, as a Prometheus and a Grafana read them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

FILES = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "patchserve" / "files"
RULES: dict[str, Any] = yaml.safe_load((FILES / "alerts.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard with its queries for every server and every reference."""

    title: str
    kind: str  # of Grafana: timeseries, stat, heatmap, table
    place: dict[str, int]  # x, y, w, h in cells; a row has 24
    unit: str  # of Grafana: s, bytes, percentunit
    queries: Sequence[tuple[str, str]]  # expression, name of its lines


def panels(window: str = "1m") -> list[Panel]:
    """All panels that have queries. `window`: of each rate, such as 1m."""
    return [
        Panel(
            panel["title"],
            panel["type"],
            panel["gridPos"],
            panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short"),
            [(_filled_in(target["expr"], window), target.get("legendFormat", "")) for target in panel["targets"]],
        )
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
    ]


def _filled_in(expression: str, window: str) -> str:
    """What Grafana sends if all values of a variable are chosen."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", window))


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every series that an expression reads.

    Raises:
        ValueError: it is not PromQL.
    """
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def write_impatient_rules(path: Path) -> Path:
    """The rules whose alerts fire as soon as their condition holds."""
    groups = [
        {**group, "rules": [{key: value for key, value in rule.items() if key != "for"} for rule in group["rules"]]}
        for group in RULES["groups"]
    ]
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path
