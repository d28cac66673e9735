"""How patchserve's cost grows with clients, image size, bank size and references; all else stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from patchserve_server.domain.input_options import InputShape
from throughput.comparison import PATCHSERVE, Measure, Plan
from throughput.inputs import REFERENCE_ID, SIZE_PX, WIDE_RESNET, StoreWriter, open_backbone, resize_images
from throughput.rounds import Row, result_row, run_interleaved
from throughput.systems import Case, start_patchserve

_PRECISION = "fp32"
_CLIENTS = 8


@dataclass(frozen=True)
class Point:
    """One point of a curve: what grows, its value (bank rows, pixels, clients or references), and the load."""

    what: str
    value: int
    case: Case

    def __str__(self) -> str:
        return f"{self.value} {self.what}{', overlay' if self.case.overlay else ''}"


PointMeasures = Iterator[tuple[Point, Measure]]


def measure_scaling(plan: Plan) -> list[Row]:
    """Rows as in the comparison, with `what` and `value` before them."""
    with ExitStack() as running:
        measures = {point: measure for start in (_one_image, _stores) for point, measure in start(plan, running)}
        measurements = run_interleaved(
            measures, rounds=max(1, plan.rounds - 1), seconds=plan.seconds, console=plan.console
        )
    return [
        {"what": point.what, "value": point.value} | result_row(point.case, taken)
        for point, taken in measurements.items()
    ]


def _case(clients: int = _CLIENTS, *, overlay: bool = False) -> Case:
    return Case(PATCHSERVE, WIDE_RESNET, _PRECISION, clients, 0, overlay=overlay)


def _one_image(plan: Plan, running: ExitStack) -> PointMeasures:
    """Clients and image sizes, on a server with the bank of one image."""
    inputs = plan.setup.inputs
    service = running.enter_context(start_patchserve(plan.setup, WIDE_RESNET, _PRECISION)).grpc
    for clients in (1, 4) if plan.quick else (1, 2, 4, 8, 16, 32):
        case = _case(clients)
        yield Point("clients", clients, case), partial(service.measure, case, images=inputs.images)
    sizes_px = [(640, 480), SIZE_PX, (1920, 1080), (4000, 3000)]
    for size_px in (sizes_px[0], sizes_px[-1]) if plan.quick else sizes_px:
        images = resize_images(inputs.images, size_px, plan.setup.folder / f"{size_px[0]}x{size_px[1]}")
        for overlay in (False, True):
            case = _case(overlay=overlay)
            yield Point("pixels", size_px[0] * size_px[1], case), partial(service.measure, case, images=images)


def _stores(plan: Plan, running: ExitStack) -> PointMeasures:
    """Servers with a larger bank, and servers with more references that are used in turn."""
    inputs = plan.setup.inputs
    backbone = open_backbone(WIDE_RESNET, _PRECISION, inputs.weights)
    image_counts = (1, 4) if plan.quick else (1, 10, 100)
    reference_counts = (1, 4) if plan.quick else (1, 8, 64)
    writer = StoreWriter(backbone, max(image_counts))
    patches = backbone.spec.patches_of(InputShape.square())
    contents = [("bank_rows", count * patches, count, 1) for count in image_counts]
    contents += [("references", count, 1, count) for count in reference_counts]
    for what, value, image_count, reference_count in contents:
        store = plan.setup.folder / f"store-{what}-{value}"
        writer.write(store, image_count, reference_count)
        service = running.enter_context(start_patchserve(plan.setup, WIDE_RESNET, _PRECISION, store)).grpc
        reference_ids = [f"{REFERENCE_ID}-{number}" for number in range(reference_count)]
        case = _case()
        measure = partial(service.measure, case, images=inputs.images, reference_ids=reference_ids)
        yield Point(what, value, case), measure
