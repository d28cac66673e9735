"""What Prometheus would get of the metrics of a server."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Mapping

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scrape:
    """All samples of one answer, which must be OpenMetrics in every letter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        self.samples: list[Sample] = [sample for family in self.families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and these labels, among others; without the prefix."""
        return sum(sample.value for sample in self.matching(name, **labels))

    def matching(self, name: str, **labels: str) -> list[Sample]:
        name = name if name.startswith("process_") else f"patchserve_{name}"
        return [each for each in self.samples if each.name == name and labels.items() <= each.labels.items()]


def get(url: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> str:
    """The body at this URL."""
    request = urllib.request.Request(url, headers={"accept": OPENMETRICS, **(headers or {})})
    with urllib.request.urlopen(request, timeout=30, context=tls) as response:
        return str(response.read().decode())


def scrape(url: str) -> Scrape:
    return Scrape(get(url))
