"""A real Prometheus that scrapes servers under test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_until

PROGRAM = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"), reason="needs Prometheus (apt-get install prometheus)"
)


class Prometheus:
    """Where a Prometheus of this test answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The value of each series now, by its labels."""
        result = self._ask("query", query=expression)["result"]
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in result}

    def value(self, expression: str) -> float:
        """The value of a single series; 0 if there is none."""
        return sum(self.query(expression).values())

    def over(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Mapping[str, Any]]:
        """The values of each series between two times: `metric` has its labels, `values` times and values."""
        span = {"start": str(start_s), "end": str(end_s), "step": str(step_s)}
        return list(self._ask("query_range", query=expression, **span)["result"])

    def firing(self) -> dict[str, Mapping[str, str]]:
        """The labels of each alert that fires, by its name."""
        alerts = [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {alert["labels"]["alertname"]: alert["labels"] for alert in alerts}

    def targets(self) -> list[Mapping[str, Any]]:
        """What is scraped, and how that went."""
        return list(self._ask("targets")["activeTargets"])

    def names(self) -> set[str]:
        """The names of all series."""
        return set(self._ask("label/__name__/values"))

    def exemplars(self, expression: str) -> list[Mapping[str, Any]]:
        found = self._ask("query_exemplars", query=expression, start="0", end="9999999999")
        return [exemplar for each in found for exemplar in each["exemplars"]]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def prometheus(
    targets: Sequence[str], folder: Path, *, rules: Sequence[Path] = (), access: Mapping[str, Any] | None = None
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these HOST:PORT twice a second.

    Args:
        targets: what it scrapes.
        folder: where it stores everything.
        rules: files of rules, evaluated as often.
        access: more of the configuration of the scrape, such as certificates.
    """
    assert PROGRAM is not None
    config = folder / "prometheus.json"  # YAML has all of JSON
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                "rule_files": [str(path) for path in rules],
                "scrape_configs": [
                    {"job_name": "patchserve", "static_configs": [{"targets": list(targets)}], **(access or {})}
                ],
            }
        )
    )
    command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += ["--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage", "--log.level=info"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reading.start()
    try:
        wait_until(lambda: process.poll() is not None or _address_in(lines) != "")
        assert process.poll() is None, "".join(lines)
        running = Prometheus(f"http://{_address_in(lines)}")
        wait_until(running.is_ready)
        yield running
    finally:
        process.terminate()
        process.wait(30)
        reading.join(5)


def _address_in(lines: list[str]) -> str:
    """Where it listens: with port 0 it says so only in its log."""
    found = re.findall(r"msg=\"?Listening on\"? address=(127\.0\.0\.1:[1-9]\d*)", "".join(lines))
    return found[0] if found else ""
