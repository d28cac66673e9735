"""The systems side by side: which ones run, and under which loads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from throughput.inputs import WIDE_RESNET
from throughput.processes import NotStartedError
from throughput.rounds import Row, result_row, run_interleaved
from throughput.systems import (
    Case,
    InProcessSystem,
    Measurement,
    Setup,
    start_flask,
    start_in_process,
    start_patchserve,
)

SYSTEMS = ("patchserve", "http", "bare", "anomalib", "flask")  # names on the command line
# Names in the results.
PATCHSERVE, HTTP_FACE, BARE, ANOMALIB, FLASK = "patchserve", "HTTP face", "bare backbone", "anomalib", "Flask"

Measure = Callable[[float], Measurement]  # takes seconds
CaseMeasures = Iterator[tuple[Case, Measure]]


@dataclass(frozen=True)
class Plan:
    """What is measured, for how long, and with what."""

    setup: Setup
    precisions: tuple[str, ...]
    systems: Collection[str]
    rounds: int
    seconds: float
    quick: bool
    console: Console

    @property
    def loads(self) -> tuple[tuple[int, int], ...]:
        """(clients, streams) of each load."""
        return ((1, 0), (8, 0), (1, 1)) if self.quick else ((1, 0), (8, 0), (32, 0), (1, 1), (8, 8))


def compare_systems(plan: Plan, backbone: str) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows of all systems on one backbone, and the stage times of patchserve with one client.

    All systems are running and warm; those that are not being measured are idle.
    """
    with ExitStack() as running:
        measures: dict[Case, Measure] = {}
        for start in (_flask, _anomalib, _bare, _patchserve):
            measures.update(start(plan, backbone, running))
        measurements = run_interleaved(measures, rounds=plan.rounds, seconds=plan.seconds, console=plan.console)
    stages = [
        {"backbone": backbone, "precision": case.precision, "overlay": case.overlay} | _mean_stages(taken)
        for case, taken in measurements.items()
        if case.system == PATCHSERVE and (case.clients, case.streams) == (1, 0)
    ]
    return [result_row(case, taken) for case, taken in measurements.items()], stages


def _flask(plan: Plan, backbone: str, running: ExitStack) -> CaseMeasures:
    if "flask" not in plan.systems or backbone != WIDE_RESNET:
        return
    cores = os.cpu_count() or 1
    for workers in (count for count in (1, 2, 4, 8) if count <= cores):
        service = running.enter_context(start_flask(plan.setup, workers))
        for clients in (1, 8):
            name = f"{FLASK}, {workers} worker{'s' * (workers > 1)}"
            case = Case(name, backbone, "fp32", clients, None, overlay=True)
            yield case, partial(service.measure, case, images=plan.setup.inputs.images)


def _anomalib(plan: Plan, backbone: str, running: ExitStack) -> CaseMeasures:
    if "anomalib" not in plan.systems or backbone != WIDE_RESNET:
        return
    for kind, name in (("torch", "TorchInferencer"), ("openvino", "OpenVINOInferencer")):
        system = _start_or_skip(plan, running, kind, backbone, "fp32")
        if system is not None:
            yield Case(f"{ANOMALIB} {name}", backbone, system.precision, None, None, overlay=False), system.measure


def _bare(plan: Plan, backbone: str, running: ExitStack) -> CaseMeasures:
    for precision in plan.precisions if "bare" in plan.systems else ():
        system = _start_or_skip(plan, running, "bare", backbone, precision)
        if system is not None:
            yield Case(BARE, backbone, system.precision, None, None, overlay=False), system.measure


def _patchserve(plan: Plan, backbone: str, running: ExitStack) -> CaseMeasures:
    for precision in plan.precisions if {"patchserve", "http"} & set(plan.systems) else ():
        try:
            server = running.enter_context(start_patchserve(plan.setup, backbone, precision))
        except NotStartedError as error:
            plan.console.print(f"patchserve, {backbone}, {precision}: skipped: {error}")
            continue
        for overlay, (clients, streams) in itertools.product((True, False), plan.loads):
            if "patchserve" in plan.systems:
                case = Case(PATCHSERVE, backbone, precision, clients, streams, overlay=overlay)
                yield case, partial(server.grpc.measure, case, images=plan.setup.inputs.images)
            if "http" in plan.systems and not streams:
                case = Case(HTTP_FACE, backbone, precision, clients, None, overlay=overlay)
                yield case, partial(server.http.measure, case, images=plan.setup.inputs.images)


def _start_or_skip(plan: Plan, running: ExitStack, kind: str, backbone: str, precision: str) -> InProcessSystem | None:
    try:
        return running.enter_context(start_in_process(plan.setup, kind, backbone, precision))
    except NotStartedError as error:
        plan.console.print(f"{kind}, {backbone}, {precision}: skipped: {error}")
        return None


def _mean_stages(measurements: list[Measurement]) -> dict[str, float]:
    count = len(measurements)
    return {name: round(sum(each.stages[name] for each in measurements) / count, 2) for name in measurements[0].stages}
