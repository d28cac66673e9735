"""How patchserve's cost grows with each thing that a user may have more of, all else left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from throughput.comparison import PATCHSERVE, Plan
from throughput.material import REFERENCE_ID, SIZE_PX, WIDE_RESNET, Stores, opened, resized
from throughput.rounds import Row, in_turns, row_of
from throughput.systems import Case, Run, patchserve

_PRECISION = "fp32"
_CLIENTS = 8


@dataclass(frozen=True)
class Point:
    """One row: what grows, how large it is, and the load. `value` is in bank rows, pixels, clients or references."""

    what: str
    value: int
    case: Case

    def __str__(self) -> str:
        return f"{self.value} {self.what}{', overlay' if self.case.overlay else ''}"


Cells = Iterator[tuple[Point, Callable[[float], Run]]]


def growth(plan: Plan) -> list[Row]:
    """Rows of the comparison with `what` and `value` before them."""
    with ExitStack() as up:
        cells = {point: run for start in (_one_reference, _banks) for point, run in start(plan, up)}
        runs = in_turns(cells, rounds=max(1, plan.rounds - 1), seconds=plan.seconds, console=plan.console)
    return [{"what": point.what, "value": point.value} | row_of(point.case, taken) for point, taken in runs.items()]


def _case(clients: int = _CLIENTS, *, overlay: bool = False) -> Case:
    return Case(PATCHSERVE, WIDE_RESNET, _PRECISION, clients, 0, overlay=overlay)


def _one_reference(plan: Plan, up: ExitStack) -> Cells:
    """Clients and image sizes, on a server with the bank of one image."""
    service = up.enter_context(patchserve(plan.bench, WIDE_RESNET, _PRECISION))
    for clients in (1, 4) if plan.quick else (1, 2, 4, 8, 16, 32):
        case = _case(clients)
        yield Point("clients", clients, case), partial(service.run, case, images=plan.bench.material.images)
    sizes_px = [(640, 480), SIZE_PX, (1920, 1080), (4000, 3000)]
    for size_px in (sizes_px[0], sizes_px[-1]) if plan.quick else sizes_px:
        images = resized(plan.bench.material.images, size_px, plan.bench.folder / f"{size_px[0]}x{size_px[1]}")
        for overlay in (False, True):
            case = _case(overlay=overlay)
            yield Point("pixels", size_px[0] * size_px[1], case), partial(service.run, case, images=images)


def _banks(plan: Plan, up: ExitStack) -> Cells:
    """Servers with a larger bank, or with more references that take turns."""
    network = opened(WIDE_RESNET, _PRECISION, plan.bench.material.weights)
    images = (1, 4) if plan.quick else (1, 10, 100)
    references = (1, 4) if plan.quick else (1, 8, 64)
    stores = Stores(network, max(images))
    contents = [("bank_rows", count * network.spec.patches_per_image, count, 1) for count in images]
    contents += [("references", count, 1, count) for count in references]
    for what, value, image_count, reference_count in contents:
        store = plan.bench.folder / f"store-{what}-{value}"
        stores.write(store, image_count, reference_count)
        service = up.enter_context(patchserve(plan.bench, WIDE_RESNET, _PRECISION, store))
        ids = [f"{REFERENCE_ID}-{number}" for number in range(reference_count)]
        case = _case()
        yield (
            Point(what, value, case),
            partial(service.run, case, images=plan.bench.material.images, reference_ids=ids),
        )
