"""patchserve with several references in turn, beside the same server with one of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from throughput.comparison import PATCHSERVE, Measure, Plan
from throughput.inputs import REFERENCE_ID
from throughput.processes import NotStartedError
from throughput.rounds import Row, result_row, run_interleaved
from throughput.systems import Case, load_reference, start_patchserve

MIXED_REFERENCES = 8
_CLIENTS = 8


@dataclass(frozen=True)
class _Mix:
    """How many references are used in turn, and the load."""

    references: int
    case: Case

    def __str__(self) -> str:
        return f"{self.references} references in turn, {self.case.backbone} {self.case.precision}"


def measure_mixed(plan: Plan, backbone: str) -> list[Row]:
    """Rows as in the comparison, with the number of `references`. Each has one image of its own."""
    with ExitStack() as running:
        measures: dict[_Mix, Measure] = {}
        for precision in plan.precisions:
            try:
                service = running.enter_context(start_patchserve(plan.setup, backbone, precision)).grpc
            except NotStartedError as error:
                plan.console.print(f"mixed, {backbone}, {precision}: skipped: {error}")
                continue
            reference_ids = [f"{REFERENCE_ID}-{number}" for number in range(MIXED_REFERENCES)]
            for reference_id, image in zip(reference_ids, plan.setup.inputs.images, strict=True):
                load_reference(service.address, image, reference_id)
            for used in (reference_ids[:1], reference_ids):
                case = Case(PATCHSERVE, backbone, precision, _CLIENTS, 0, overlay=False)
                measure = partial(service.measure, case, images=plan.setup.inputs.images, reference_ids=used)
                measures[_Mix(len(used), case)] = measure
        measurements = run_interleaved(measures, rounds=plan.rounds, seconds=plan.seconds, console=plan.console)
    return [{"references": mix.references} | result_row(mix.case, taken) for mix, taken in measurements.items()]
