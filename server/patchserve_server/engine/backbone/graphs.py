"""Captured passes: a device repeats a known sequence of kernels, without the time that it takes to launch each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Pass = Callable[[], tuple[Tensor, ...]]
"""Reads tensors that never move, and returns what it computed of them."""

_WARM_UP_RUNS = 3  # libraries choose their kernels in the first ones


class Graphs(Protocol):
    """How passes of a network are repeated."""

    def capture(self, run: Pass) -> Pass:
        """The same pass, prepared. Its results are valid until it runs again."""


class EagerGraphs:
    """Runs each pass as it is: on a CPU, and in tests."""

    def capture(self, run: Pass) -> Pass:
        run()
        return run


class CudaGraphs:
    """CUDA graphs. All of them share one pool of memory, because only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, run: Pass) -> Pass:
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP_RUNS):
                    run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads go on searching while this one captures.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                results = run()

        def replay() -> tuple[Tensor, ...]:
            graph.replay()
            return results

        return replay
