"""A real Prometheus with the alert rules of deploy/, and the queries of the dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import requests
import yaml
from e2e.proxies import free_port, program
from fakes.waiting import wait_until

CHART_FILES = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "patchserve" / "files"
RULES: dict[str, Any] = yaml.safe_load((CHART_FILES / "alerts.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((CHART_FILES / "dashboard.json").read_text())
INTERVAL_S = 0.2


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard with its queries for every server and every reference."""

    title: str
    kind: str  # of Grafana: timeseries, stat, heatmap, table
    place: dict[str, int]  # x, y, w, h in cells
    unit: str
    queries: Sequence[tuple[str, str]]  # expression, name of its lines


def panels(interval: str = "1m") -> list[Panel]:
    """All panels that have queries."""
    return [
        Panel(
            panel["title"],
            panel["type"],
            panel["gridPos"],
            panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short"),
            [
                (_filled_in(target["expr"], interval), target.get("legendFormat", ""))
                for target in panel.get("targets", [])
            ],
        )
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
    ]


def _filled_in(expression: str, interval: str) -> str:
    """What Grafana sends if all values of a variable are chosen."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", interval))


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every series that an expression reads.

    Raises:
        ValueError: it is not PromQL.
    """
    found: list[promql_parser.VectorSelector] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


class Prometheus:
    """Scrapes servers of this machine and evaluates the rules five times a second, without their `for`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: labels in `metric`, time and value in `value`."""
        answer = requests.get(f"{self._url}/api/v1/query", {"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """The same over a span of time, with `values`."""
        span = {"query": expression, "start": start_s, "end": end_s, "step": step_s}
        answer = requests.get(f"{self._url}/api/v1/query_range", span, timeout=10).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def firing(self) -> dict[str, dict[str, str]]:
        """The alerts that fire: their labels by name."""
        alerts = requests.get(f"{self._url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["labels"] for alert in alerts if alert["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[Prometheus]:
    """A Prometheus that has scraped all of these HOST:PORTs once."""
    binary = program("prometheus")
    (folder / "alerts.yml").write_text(yaml.safe_dump(_without_waiting(RULES)))
    interval = f"{round(1000 * INTERVAL_S)}ms"
    configuration = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "patchserve", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log, stdout=log)
    try:
        running = Prometheus(f"http://{address}")
        wait_until(lambda: _has_scraped(running, process, folder / "prometheus.log", len(targets)))
        yield running
    finally:
        process.terminate()
        process.wait(20)


def _has_scraped(running: Prometheus, process: subprocess.Popen[bytes], log: Path, target_count: int) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return len(running.query("up == 1")) == target_count
    except requests.ConnectionError:
        return False


def _without_waiting(rules: dict[str, Any]) -> dict[str, Any]:
    groups = [
        {**group, "rules": [{key: value for key, value in rule.items() if key != "for"} for rule in group["rules"]]}
        for group in rules["groups"]
    ]
    return {"groups": groups}
