"""Captured passes: a device repeats a known sequence of kernels, without the time that it takes to launch each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from patchserve_server.engine.backbone.devices import release_memory

Pass = Callable[[], tuple[Tensor, ...]]
"""Reads tensors that never move, and returns what it computed of them."""

_log = logging.getLogger(__name__)

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
    """CUDA graphs. All of them share one stream and one pool of memory, because only one runs at a time.

    What one pass leaves in the pool, another overwrites: results must be copied before the next pass runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool, self._is_pool_used = torch.cuda.graph_pool_handle(), False
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # memory is shared on one stream only

    def capture(self, run: Pass) -> Pass:
        computing = torch.cuda.current_stream(self._device)
        self._aside.wait_stream(computing)
        with torch.cuda.stream(self._aside):
            for _ in range(_WARM_UP_RUNS):
                run()
            try:
                prepared = self._captured_or_again(run)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _log.warning("A pass runs without a CUDA graph, which takes longer: %s", str(error).partition("\n")[0])
                prepared = run
        computing.wait_stream(self._aside)
        return prepared

    def _captured_or_again(self, run: Pass) -> Pass:
        """During a capture, torch cannot free the memory that it keeps; in the warm-up runs before, it can."""
        with suppress(torch.OutOfMemoryError):
            return self._captured(run)
        release_memory()  # out of the block, as the error holds what the pass has computed
        return self._captured(run)

    def _captured(self, run: Pass) -> Pass:
        """Captures the current stream. `torch.cuda.graph` would first wait for the device and free the memory that
        torch keeps, which other threads use, and would leave its stream the current one if the capture fails.
        """
        graph = torch.cuda.CUDAGraph()
        # Other threads go on searching, and allocate memory, while this one captures.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            results = run()
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            if not self._is_pool_used:
                self._pool = torch.cuda.graph_pool_handle()  # torch takes no pool again whose only capture has failed
            raise
        graph.capture_end()
        self._is_pool_used = True

        def replay() -> tuple[Tensor, ...]:
            graph.replay()
            return results

        return replay
