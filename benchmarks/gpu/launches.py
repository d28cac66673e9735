"""Counts what a pass launches on a GPU beside its network, on any machine: python -m gpu.launches.

Everything runs on torch's meta device, which computes nothing: a pass for 75,000 rows takes a moment and no memory, and
whatever would wait for the device fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.convolutional import WIDE_RESNET50_2
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.graphs import Pass
from patchserve_server.engine.backbone.torch_runtime import NormalizedLayers
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.device_scoring import DevicePart, score_on_device
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.region_of_interest import build_roi_mask
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.engine.search.row_norms import RowNorms

META = torch.device("meta")
SPEC = WIDE_RESNET50_2
LEFT = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)

_NO_LAUNCH = {"empty", "empty_like", "empty_strided", "new_empty", "device", "detach", "lift_fresh", "is_pinned"}
_SEVERAL = {"topk": 2, "sort": 3}  # a selection and a sort of what it selected; a copy, an order and the sort


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts kernels by the name of their operation: views and allocations launch nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name = Counter[str]()
        self.operations = 0  # each costs time of the interpreter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # what is made of other operations is counted as these
            made = NotImplemented if "upsample" in func.name() else func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        name = func.name().partition("::")[2].partition(".")[0]
        self.operations += 1
        if not func.is_view and name not in _NO_LAUNCH and not name.startswith("sym_"):
            self.by_name[name] += _SEVERAL.get(name, 1)
        return func(*args, **kwargs)

    @property
    def count(self) -> int:
        return self.by_name.total()


@dataclass
class NoTransfers:
    """Counts copies, and copies nothing."""

    copies: int = 0

    def to_device(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        self.copies += 1
        return [torch.empty(array.shape, dtype=torch.uint8, device=META) for array in arrays]

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        self.copies += 1
        if tensors:
            torch.cat([tensor.flatten() for tensor in tensors])
        return [np.zeros(tensor.shape, np.float32) for tensor in tensors]


class OneLaunch:
    """A captured network: one launch, whatever is in it."""

    def capture(self, run: Pass) -> Pass:
        results = run()

        def replay() -> tuple[Tensor, ...]:
            results[0].zero_()  # one launch
            return results

        return replay


class _Layers(nn.Module):
    """The layers of a network without the network."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        count, _, height, width = images.shape
        shapes = [(512, height // 8, width // 8), (1024, height // 16, width // 16)]
        return tuple(
            torch.empty((count, *shape), dtype=torch.bfloat16, device=META).to(memory_format=torch.channels_last)
            for shape in shapes
        )


@dataclass
class CountedPass:
    """References that are scored together, and what their passes launched."""

    transfers: NoTransfers = field(default_factory=NoTransfers)

    def __post_init__(self) -> None:
        module = NormalizedLayers(_Layers(), SPEC).to(META)
        self.runtime = DeviceRuntime(module, "bf16", OneLaunch(), self.transfers)

    def part(self, number: int, options: ReferenceOptions, rows: int, images: int, side_px: int = 224) -> DevicePart:
        shape = InputShape.square(side_px)
        mask = build_roi_mask(options.region_of_interest, shape, SPEC.grid_of(shape))
        pipeline = Pipeline.build(SPEC, self.runtime, shape, options, ParallelSearch(), roi_mask=mask)
        index = meta_index(rows, SPEC.feature_dim)
        plan = DevicePlan.build(pipeline, index)
        return DevicePart(number, pipeline, index, np.zeros((images, *shape.sides_px, 3), np.uint8), plan=plan)

    def score(self, parts: Sequence[DevicePart]) -> Launches:
        for part in parts:
            tile_shape = part.pipeline.tiling.tile_shape
            self.runtime.warm_up(tile_shape, part.pipeline.tiles_per_pass)
        self.transfers.copies = 0
        launches = Launches()
        with launches:
            outcomes = list(score_on_device(parts))
        for outcome in outcomes:
            if isinstance(outcome.scores, Exception):
                raise outcome.scores
        return launches


def meta_index(rows: int, dim: int) -> BankIndex:
    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=META)

    norms = RowNorms(empty(dim), empty(rows, dtype=torch.float64), 1.0)
    return BankIndex(empty(rows, dim), norms, places=empty(rows, dtype=torch.int32), spacing=empty(rows))


KINDS = {
    "NOTEBOOK": (ReferenceOptions(), 224),
    "PAPER": (ReferenceOptions(ScoringProfile.PAPER), 224),
    "VERDICT": (ReferenceOptions(ScoringProfile.VERDICT, input=InputOptions(longer_side_px=224)), 224),
    "a region of interest": (ReferenceOptions(region_of_interest=LEFT), 224),
    "PAPER in a region": (ReferenceOptions(ScoringProfile.PAPER, region_of_interest=LEFT), 224),
    "a search radius": (ReferenceOptions(search_radius=0.1), 224),
    "4 tiles of 224 px": (ReferenceOptions(input=InputOptions(longer_side_px=416, tile_px=224, tile_overlap=0.1)), 416),
}


def counted(kind: str, *, rows: int = 784, images: int = 1, references: int = 1) -> tuple[Launches, int]:
    """What passes of so many images, divided evenly among so many references of a kind, launch; and their copies."""
    options, side_px = KINDS[kind]
    one = CountedPass()
    shares = [len(share) for share in np.array_split(np.arange(images), references)]
    launches = one.score(
        [one.part(number, options, rows, share, side_px) for number, share in enumerate(shares) if share]
    )
    return launches, one.transfers.copies


def main() -> None:
    print("| kind | images | rows | references | launches | operations | copies |\n|---|---|---|---|---|---|---|")
    cases = [(kind, 784, images, 1) for kind in KINDS for images in (1, 32)]
    cases += [("NOTEBOOK", 75_000, 1, 1), ("NOTEBOOK", 75_000, 32, 1), ("NOTEBOOK", 784, 32, 8), ("PAPER", 784, 32, 8)]
    for kind, rows, images, references in cases:
        launches, copies = counted(kind, rows=rows, images=images, references=references)
        print(f"| {kind} | {images} | {rows} | {references} | {launches.count} | {launches.operations} | {copies} |")


if __name__ == "__main__":
    main()
