"""The bare network in each precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from gpu.inputs import model_inputs
from gpu.options import Options
from gpu.part import run_cases
from gpu.rates import runs_per_s
from gpu.table import Case, Measured
from gpu.trial import trial_runtime
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.device_precision import on_device
from patchserve_server.engine.backbone.device_runtime import DTYPES, DeviceRuntime, in_precision
from patchserve_server.engine.backbone.devices import resolve_device, synchronize
from patchserve_server.engine.backbone.graphs import CudaGraphs, EagerGraphs, Graphs
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.runtime import BF16, FP32
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.measurements import Measurements

_SQUARE = InputShape.square()


def run(options: Options, ends_s: float) -> None:
    run_cases(cases(options), Networks(options), seconds=options.seconds, ends_s=ends_s)


def bare_run(runtime: DeviceRuntime, batch: int, shape: InputShape = _SQUARE) -> Callable[[], object]:
    images = torch.from_numpy(model_inputs(batch, shape)).to(runtime.device)

    @torch.inference_mode()
    def run() -> None:
        runtime.layers_of(images)
        synchronize(runtime.device)

    return run


def plain_run(module: nn.Module, batch: int, device: torch.device, graphs: Graphs) -> Callable[[], object]:
    """The same network as somebody would run it who only wants it to be fast: equal images may have other results, and
    its inputs are scaled already.
    """
    network = in_precision(module, BF16).part
    images = torch.rand(batch, 3, *_SQUARE.sides_px).to(device, torch.bfloat16, memory_format=torch.channels_last)

    def compute() -> tuple[torch.Tensor, ...]:
        return tuple(network(images))

    with torch.inference_mode(), _fastest_convolutions():
        replay = graphs.capture(compute)

    def run(_kept: object = compute) -> None:  # a graph does not keep what it reads
        replay()
        synchronize(device)

    return run


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = True, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


class Networks:
    """The bare network in each precision."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._device = torch.device("cpu") if options.is_trial else resolve_device(options.device)
        self._backbone = load_backbone(options.backbone, options.weights(options.backbone), self._device)
        self._runtimes = dict[str, DeviceRuntime]()

    def runtime(self, precision: str) -> DeviceRuntime:
        if precision not in self._runtimes:
            if self._options.is_trial:
                runtime = trial_runtime(self._backbone.runtime.module, precision)
            else:
                runtime = on_device(
                    self._backbone, precision, map_difference=map_difference, measurements=Measurements(None)
                ).runtime
            self._runtimes[precision] = runtime
        return self._runtimes[precision]

    def measure(self, seconds: float, precision: str, batch: int) -> Measured:
        rate = runs_per_s({"bare": bare_run(self.runtime(precision), batch)}, seconds)["bare"]
        return Measured(batch * rate)

    def measure_plain(self, seconds: float, batch: int) -> Measured:
        graphs = EagerGraphs() if self._options.is_trial else CudaGraphs(self._device)
        runs = {
            "bare": bare_run(self.runtime(BF16), batch),
            "plain": plain_run(self._backbone.runtime.module, batch, self._device, graphs),
        }
        found = runs_per_s(runs, seconds)
        to = f"{batch * found['bare']:,.0f}/s, bare network, {BF16}"
        return Measured(batch * found["plain"], ratio=found["plain"] / found["bare"], to=to)


def cases(options: Options) -> list[Case[Networks]]:
    batch = options.scale.batch
    others = [each for each in options.scale.batches if each != batch]
    precisions = (FP32, BF16) if options.is_trial else tuple(DTYPES)

    def bare(batch: int) -> list[Case[Networks]]:
        return [
            Case(
                f"bare network, {each}, batches of {batch}",
                partial(Networks.measure, precision=each, batch=batch),
            )
            for each in precisions
        ]

    plain = Case(
        f"torch alone, {BF16}, cudnn.benchmark, CUDA graph, batches of {batch}",
        partial(Networks.measure_plain, batch=batch),
    )
    return [*bare(batch), plain, *(case for each in others for case in bare(each))]
