"""How much of the detector's speed is left after everything around it: `make bench`.

Starts a real server on a free port and, in the same run, in turns, measures its unary Infer (with and without overlay,
one and several clients) and the bare detector on prepared inputs, in this process. The ratios are the result; the
absolute numbers are this machine's of this minute. Writes out/bench/results.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from patchserve_client import Client
from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.reference import ReferenceOptions
from patchserve_server.engine import create_detector

REPO = Path(__file__).resolve().parents[1]
INTACT = sorted((REPO / "samples" / "parcels" / "train" / "good").iterdir())
PICTURE = min((REPO / "samples" / "parcels" / "test").rglob("*.*"))
RESULTS = REPO / "out" / "bench" / "results.json"
ROUNDS = 10
COLUMNS = {
    "system": "system",
    "clients": "clients",
    "overlay": "overlay",
    "images/s": "images_per_second",
    "of bare": "ratio_to_bare_detector",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
}


@dataclass(frozen=True)
class Case:
    """What is measured: `clients` 0 is the bare detector."""

    system: str
    clients: int
    overlay: bool


@dataclass(frozen=True)
class Measurement:
    """Of every request, and of every round in pictures a second."""

    latencies_ms: list[float]
    rates: list[float]


Measurements = dict[Case, Measurement]

CASES = (
    Case("bare detector", 0, overlay=False),
    Case("patchserve", 1, overlay=False),
    Case("patchserve", 1, overlay=True),
    Case("patchserve", 8, overlay=False),
    Case("patchserve", 8, overlay=True),
)


@contextmanager
def running_server(backbone: str) -> Iterator[str]:
    """A server of its own process; yields its address."""
    command = [sys.executable, "-m", "patchserve_server.cli", "serve", "--port", "0", "--backbone", backbone]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = re.search(r"listening on (\S+)", process.stdout.readline())
            if ready is None:
                sys.exit("The server did not start; its log is above.")
            yield ready[1]
        finally:
            process.terminate()


def bare_detector(backbone: str) -> Callable[[], object]:
    """One pass of the detector over a picture that is prepared already."""
    detector = create_detector(backbone=backbone, threads=os.cpu_count())
    limits = imaging.ImageLimits(2**25, 64_000_000)

    def prepared(path: Path) -> ModelInputs:
        return imaging.to_model_input(imaging.decode(path.read_bytes(), limits), detector.info.input_size_px)[None]

    model = detector.fit(prepared(INTACT[0]), ReferenceOptions(), lambda *_: None)
    inputs = prepared(PICTURE)
    return lambda: detector.detect(model, inputs)


def latencies_ms(call: Callable[[], object], count: int, clients: int) -> tuple[list[float], float]:
    """Every call's latency, and the seconds that all of them took together."""

    def timed(_: int) -> float:
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1000

    began = time.perf_counter()
    with ThreadPoolExecutor(max(clients, 1)) as pool:
        latencies = list(pool.map(timed, range(count)))
    return latencies, time.perf_counter() - began


def measured(backbone: str, requests: int) -> Measurements:
    """Every case in turns, several rounds, so that a slow minute of the machine slows them all."""
    found = {case: Measurement([], []) for case in CASES}
    bare = bare_detector(backbone)
    image = PICTURE.read_bytes()
    with running_server(backbone) as address, Client(address) as client:
        client.load_reference(INTACT[0])
        for _ in range(ROUNDS):
            for case in CASES:
                call = functools.partial(client.infer, image, overlay=case.overlay) if case.clients else bare
                call()
                taken_ms, took_s = latencies_ms(call, requests, case.clients)
                found[case].latencies_ms.extend(taken_ms)
                found[case].rates.append(len(taken_ms) / took_s)
    return found


def rows_of(found: Measurements, backbone: str) -> list[dict[str, Any]]:
    """One row a case: medians over the rounds for rates, percentiles over all requests for latencies."""
    bare_rate = statistics.median(found[CASES[0]].rates)
    rows = []
    for case in CASES:
        rate = statistics.median(found[case].rates)
        cuts = statistics.quantiles(found[case].latencies_ms, n=20)
        rows.append(
            asdict(case)
            | {
                "backbone": backbone,
                "precision": "fp32",
                "images_per_second": round(rate, 2),
                "ratio_to_bare_detector": round(rate / bare_rate, 3),
                "p50_ms": round(cuts[9], 2),
                "p95_ms": round(cuts[18], 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what the server leaves of the bare detector's speed.")
    parser.add_argument("--backbone", default="efficientnet_lite2", choices=["efficientnet_lite2", "wide_resnet50_2"])
    parser.add_argument("--requests", type=int, default=12, help=f"of each case in each of the {ROUNDS} rounds")
    arguments = parser.parse_args()
    rows = rows_of(measured(arguments.backbone, arguments.requests), arguments.backbone)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "picture": PICTURE.name, "rows": rows}, indent=2) + "\n")
    table = Table(*COLUMNS, title=arguments.backbone)
    for row in rows:
        table.add_row(*(str(row[name]) for name in COLUMNS.values()))
    Console().print(table)
    print(f"written to {RESULTS.relative_to(REPO)}")


if __name__ == "__main__":
    main()
