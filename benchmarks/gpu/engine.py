"""The engine in this process: the bare network, the detector, and what each kind of work costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpu.inputs import model_inputs, model_with_rows
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.ports import Scorer
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

ROWS = (784, 7_840, 75_000)
GOALS = (0.75, None, 0.4)
BATCHES = (1, 8, 32, 64)
SIDES_PX = (320, 448)
MIXED = 8


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    per_s: float  # images
    ratio: float | None = None
    to: str = ""
    goal: float | None = None  # of the ratio


@dataclass(frozen=True)
class Engine:
    """`seconds`: how long each case runs. `batch`: the largest number of images at once."""

    detector: PatchCoreDetector
    seconds: float
    batch: int

    def rate(self, run: Callable[[], object], images: int) -> float:
        """Images a second of a run that has so many."""
        run()
        runs, started_s = 0, time.perf_counter()
        while (passed_s := time.perf_counter() - started_s) < self.seconds or runs < 3:
            run()
            runs += 1
        return images * runs / passed_s

    def bare(self, scorer: PatchCoreScorer, batch: int, shape: InputShape) -> float:
        """The network alone, with its inputs on the device."""
        runtime = scorer.pipeline.runtime
        assert isinstance(runtime, DeviceRuntime)
        images = torch.from_numpy(model_inputs(batch, shape)).to(runtime.device)

        @torch.inference_mode()
        def run() -> None:
            runtime.layers_of(images)
            synchronize(runtime.device)

        return self.rate(run, batch)

    def detect(self, scorers: Sequence[Scorer], batch: int, shape: InputShape) -> float:
        """From model inputs in main memory to scores and maps there."""
        inputs = model_inputs(batch, shape)
        shares = np.array_split(inputs, len(scorers))
        return self.rate(
            lambda: list(
                self.detector.score_batch([pair for pair in zip(scorers, shares, strict=True) if len(pair[1])])
            ),
            batch,
        )

    def opened(self, rows: int, shape: InputShape, seed: int = 0) -> PatchCoreScorer:
        scorer = self.detector.open(model_with_rows(self.detector, rows, shape, seed=seed))
        assert isinstance(scorer, PatchCoreScorer)
        return scorer

    def table(self) -> list[Row]:
        square = InputShape.square()
        batch = min(32, self.batch)
        batches = sorted({batch, *(each for each in BATCHES if each <= self.batch)})
        small = self.opened(ROWS[0], square)
        bare = {each: self.bare(small, each, square) for each in batches}
        rows = [Row(f"bare network, batches of {each}", rate) for each, rate in bare.items()]
        for count, goal in zip(ROWS, GOALS, strict=True):
            scorer = small if count == ROWS[0] else self.opened(count, square)
            rate = self.detect([scorer], batch, square)
            rows.append(Row(f"detect, batches of {batch}, {count} rows", rate, rate / bare[batch], "bare", goal))
        for each in batches:
            rate = self.detect([small], each, square)
            rows.append(Row(f"detect, batches of {each}, {ROWS[0]} rows", rate, rate / bare[each], "bare"))
        one = self.detect([small], batch, square)
        mixed = self.detect([self.opened(ROWS[0], square, seed) for seed in range(MIXED)], batch, square)
        rows.append(Row(f"detect, {MIXED} references mixed", mixed, mixed / one, "one reference", 0.9))
        for side_px in SIDES_PX:
            shape = InputShape.square(side_px)
            scorer = self.opened(ROWS[0], shape)
            rate, own = self.detect([scorer], batch, shape), self.bare(scorer, batch, shape)
            rows.append(Row(f"detect, {side_px} x {side_px} pixels", rate, rate / own, "bare of this size"))
        return [*rows, self._one_image(small), self._stalls(small)]

    def _one_image(self, scorer: PatchCoreScorer) -> Row:
        """The time on the device for one image, as the server reports it."""
        inputs = model_inputs(1, InputShape.square())
        times = [scorer.score(inputs)[1] for _ in range(30)]
        ms = statistics.median(each.embed_ms + each.search_ms for each in times)
        return Row(f"one image: {ms:.2f} ms for embedding and search", 1000 / ms, 2 / ms, "2 ms", 1.0)

    def _stalls(self, scorer: PatchCoreScorer) -> Row:
        """The slowest call after ready over the median of its number of images."""
        inputs, worst = model_inputs(self.batch, InputShape.square()), 0.0
        for count in range(1, self.batch + 1):
            times_s = []
            for _ in range(5):
                started_s = time.perf_counter()
                scorer.score(inputs[:count])
                times_s.append(time.perf_counter() - started_s)
            worst = max(worst, max(times_s) / statistics.median(times_s))
        return Row(
            f"slowest call of 1 to {self.batch} images: {worst:.1f} times the median", 0.0, 3 / worst, "3 times", 1.0
        )
