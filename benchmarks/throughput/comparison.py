"""The systems side by side: which run, under which loads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from throughput.material import WIDE_RESNET
from throughput.processes import NotStartedError
from throughput.rounds import Row, in_turns, row_of
from throughput.systems import Bench, Case, InProcess, Run, flask, in_process, patchserve

SYSTEMS = ("patchserve", "bare", "anomalib", "flask")
PATCHSERVE, BARE, ANOMALIB, FLASK = "patchserve", "bare backbone", "anomalib", "Flask"

Cells = dict[Case, Callable[[float], Run]]


@dataclass(frozen=True)
class Plan:
    """What is to be measured, with what."""

    bench: Bench
    precisions: tuple[str, ...]
    systems: Collection[str]
    rounds: int
    seconds: float
    quick: bool
    console: Console

    @property
    def loads(self) -> tuple[tuple[int, int], ...]:
        """(clients, streams) each."""
        return ((1, 0), (8, 0), (1, 1)) if self.quick else ((1, 0), (8, 0), (32, 0), (1, 1), (8, 8))


def compared(plan: Plan, backbone: str) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows of all systems on one backbone, and where an answer's time goes for one client of ours.

    All of them are up, warm and idle while one is measured.
    """
    with ExitStack() as up:
        cells: Cells = {}
        for start in (_flask, _anomalib, _bare, _patchserve):
            for case, run in start(plan, backbone, up):
                cells[case] = run
        runs = in_turns(cells, rounds=plan.rounds, seconds=plan.seconds, console=plan.console)
    stages = [
        {"backbone": backbone, "precision": case.precision, "overlay": case.overlay} | _mean_stages(taken)
        for case, taken in runs.items()
        if case.system == PATCHSERVE and (case.clients, case.streams) == (1, 0)
    ]
    return [row_of(case, taken) for case, taken in runs.items()], stages


def _flask(plan: Plan, backbone: str, up: ExitStack) -> Iterator[tuple[Case, Callable[[float], Run]]]:
    if "flask" not in plan.systems or backbone != WIDE_RESNET:
        return
    cores = os.cpu_count() or 1
    for workers in (count for count in (1, 2, 4, 8) if count <= cores):
        service = up.enter_context(flask(plan.bench, workers))
        for clients in (1, 8):
            name = f"{FLASK}, {workers} worker{'s' * (workers > 1)}"
            case = Case(name, backbone, "fp32", clients, None, overlay=True)
            yield case, partial(service.run, case, images=plan.bench.material.images)


def _anomalib(plan: Plan, backbone: str, up: ExitStack) -> Iterator[tuple[Case, Callable[[float], Run]]]:
    if "anomalib" not in plan.systems or backbone != WIDE_RESNET:
        return
    for kind, name in (("torch", "TorchInferencer"), ("openvino", "OpenVINOInferencer")):
        running = _started(plan, up, kind, backbone, "fp32")
        if running is not None:
            yield Case(f"{ANOMALIB} {name}", backbone, running.precision, None, None, overlay=False), running.run


def _bare(plan: Plan, backbone: str, up: ExitStack) -> Iterator[tuple[Case, Callable[[float], Run]]]:
    for precision in plan.precisions if "bare" in plan.systems else ():
        running = _started(plan, up, "bare", backbone, precision)
        if running is not None:
            yield Case(BARE, backbone, running.precision, None, None, overlay=False), running.run


def _patchserve(plan: Plan, backbone: str, up: ExitStack) -> Iterator[tuple[Case, Callable[[float], Run]]]:
    for precision in plan.precisions if "patchserve" in plan.systems else ():
        try:
            service = up.enter_context(patchserve(plan.bench, backbone, precision))
        except NotStartedError as error:
            plan.console.print(f"patchserve, {backbone}, {precision}: skipped: {error}")
            continue
        case = Case(PATCHSERVE, backbone, precision, 1, 0, overlay=False)
        for overlay in (True, False):
            for clients, streams in plan.loads:
                loaded = dataclasses.replace(case, clients=clients, streams=streams, overlay=overlay)
                yield loaded, partial(service.run, loaded, images=plan.bench.material.images)


def _started(plan: Plan, up: ExitStack, kind: str, backbone: str, precision: str) -> InProcess | None:
    try:
        return up.enter_context(in_process(plan.bench, kind, backbone, precision))
    except NotStartedError as error:
        plan.console.print(f"{kind}, {backbone}, {precision}: skipped: {error}")
        return None


def _mean_stages(runs: list[Run]) -> dict[str, float]:
    return {name: round(sum(run.stages[name] for run in runs) / len(runs), 2) for name in runs[0].stages}
