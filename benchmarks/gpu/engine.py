"""The engine in this process: the detector, beside the bare network, and what each kind of work costs."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from gpu.detectors import open_detector
from gpu.inputs import References, model_inputs, write_weights
from gpu.networks import bare_run
from gpu.options import Options
from gpu.part import run_cases, tell
from gpu.rates import runs_per_s
from gpu.stages import kernels, stages
from gpu.table import Case, Goal, Measured
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.ports import Scorer, ScoringTimes
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.engine.search.device_search import DeviceIndex, search_on_device

LITE = "efficientnet_lite2"

_SQUARE = InputShape.square()
_WORKERS = 2  # as many as a server has
_DEVICE_MS_OF_ONE = 2.0
_STALL = 3.0
_ALL_BATCHES_S = 8.0  # a GPU takes 2 to 3


@dataclass
class Engine:
    """A detector, and what is open there."""

    options: Options
    detector: PatchCoreDetector
    start_s: float
    _references: dict[InputShape, References] = field(default_factory=dict)
    _opened: dict[tuple[int, InputShape, int], PatchCoreScorer] = field(default_factory=dict)

    @classmethod
    def start(cls, options: Options, backbone: str) -> Engine:
        started_s = time.perf_counter()
        detector = open_detector(options, backbone)
        engine = cls(options, detector, 0.0)
        engine.opened(options.scale.rows[0])
        engine.start_s = time.perf_counter() - started_s
        tell(found={"precision": detector.info.precision})
        return engine

    def opened(self, rows: int, shape: InputShape = _SQUARE, seed: int = 0) -> PatchCoreScorer:
        """The reference with so many rows. It is ready: opening has captured and warmed up all that it needs."""
        key = rows, shape, seed
        if key not in self._opened:
            if shape not in self._references:
                self._references[shape] = References.create(self.detector, shape)
            scorer = self.detector.open(self._references[shape].model(rows, seed))
            assert isinstance(scorer, PatchCoreScorer)
            self._opened[key] = scorer
        return self._opened[key]

    def detect(self, scorers: Sequence[Scorer], batch: int, shape: InputShape = _SQUARE) -> Callable[[], object]:
        """From model inputs in main memory to scores and maps there."""
        shares = np.array_split(model_inputs(batch, shape), len(scorers))
        pairs = [pair for pair in zip(scorers, shares, strict=True) if len(pair[1])]
        return lambda: list(self.detector.score_batch(pairs))

    def bare(self, scorer: PatchCoreScorer, batch: int, shape: InputShape = _SQUARE) -> Callable[[], object]:
        """The network alone, with its inputs on the device."""
        runtime = scorer.pipeline.runtime
        assert isinstance(runtime, DeviceRuntime)
        return bare_run(runtime, batch, shape)

    @property
    def memory_mib(self) -> float:
        return 0.0 if self.options.is_trial else torch.cuda.max_memory_allocated() / 2**20


def run(options: Options, ends_s: float) -> None:
    """One of the parts with a detector."""
    backbone = LITE if options.part == "lite" else options.backbone
    if not options.weights(backbone).exists():  # main writes only those that several parts need
        write_weights(backbone, options.weights(backbone))
    engine = Engine.start(options, backbone)
    freeze_heap()  # as a server does, so that no call waits until Python has looked through half a million objects
    run_cases(cases(options), engine, seconds=options.seconds, ends_s=ends_s)


def cases(options: Options) -> list[Case[Engine]]:
    """The cases of a part, the most important first."""
    scale = options.scale
    few, middle, many = scale.rows
    batch, largest = scale.batch, max(scale.batches)
    start = Case[Engine]("start, until a reference is ready", lambda engine, _: Measured(engine.start_s, "s"))
    goals = [
        Case(f"slowest call over median, 1 to {largest} images", _stalls, Goal(_STALL, "times", at_most=True)),
        Case(f"detect, {few:,} rows, batches of {batch}", partial(_detect, rows=few), Goal(0.75, of_ratio=True)),
        Case(f"detect, {many:,} rows, batches of {batch}", partial(_detect, rows=many), Goal(0.4, of_ratio=True)),
        Case("one image, embedding and search", _one_image, Goal(_DEVICE_MS_OF_ONE, "ms", at_most=True)),
    ]
    calls = [(f"{_images(one)}, {rows:,} rows", rows, one) for rows, one in ((few, batch), (many, batch), (few, 1))]

    def mixed(references: int, goal: Goal | None = None) -> Case[Engine]:
        return Case(f"detect, {references} references mixed", partial(_mixed, references=references), goal)

    if options.part == "lite":
        return [replace(case, what=f"{LITE}: {case.what}") for case in (start, goals[0], goals[3], goals[1])]
    if options.part != "engine":
        return [start, goals[1], goals[2]]
    return [
        start,
        *goals,
        mixed(scale.mixed, Goal(0.9, of_ratio=True)),
        Case(f"queries searched twice, {few:,} rows", partial(_unresolved, rows=few)),
        Case(f"queries searched twice, {many:,} rows", partial(_unresolved, rows=many)),
        Case("largest memory of the device", lambda engine, _: Measured(engine.memory_mib, "MiB")),
        Case(f"detect, {few:,} rows, by two threads at once", _two_threads),
        *(
            Case(f"detect, {few:,} rows, batches of {each}", partial(_detect, rows=few, batch=each))
            for each in scale.batches
            if each != batch
        ),
        Case(f"detect, {middle:,} rows, batches of {batch}", partial(_detect, rows=middle)),
        *(mixed(each) for each in scale.mixed_too),
        *(Case(f"detect, {side} x {side} px", partial(_size, side_px=side)) for side in scale.sides_px),
        *(Case(f"a call by stages, {name}", partial(_stages, rows=rows, batch=one)) for name, rows, one in calls),
        *(Case(f"device busy, {name}", partial(_kernels, rows=rows, batch=one)) for name, rows, one in calls),
    ]


def _detect(engine: Engine, seconds: float, rows: int, batch: int | None = None) -> Measured:
    count, scorer = batch or engine.options.scale.batch, engine.opened(rows)
    found = runs_per_s({"bare network": engine.bare(scorer, count), "detect": engine.detect([scorer], count)}, seconds)
    if batch is None:
        tell(found={"bare_per_s": count * found["bare network"]})
    return _against(found, "detect", "bare network", count)


def _against(found: Mapping[str, float], one: str, other: str, images: int) -> Measured:
    return Measured(images * found[one], ratio=found[one] / found[other], to=f"{images * found[other]:,.0f}/s, {other}")


def _mixed(engine: Engine, seconds: float, references: int) -> Measured:
    scale = engine.options.scale
    several = [engine.opened(scale.rows[0], seed=number) for number in range(references)]
    runs = {
        "with one reference": engine.detect(several[:1], scale.batch),
        "mixed": engine.detect(several, scale.batch),
    }
    return _against(runs_per_s(runs, seconds), "mixed", "with one reference", scale.batch)


def _size(engine: Engine, seconds: float, side_px: int) -> Measured:
    shape, batch = InputShape.square(side_px), engine.options.scale.batch
    scorer = engine.opened(engine.options.scale.rows[0], shape)
    runs = {
        "bare network of this size": engine.bare(scorer, batch, shape),
        "detect": engine.detect([scorer], batch, shape),
    }
    return _against(runs_per_s(runs, seconds), "detect", "bare network of this size", batch)


def _two_threads(engine: Engine, seconds: float) -> Measured:
    """As a server does it: while one waits for the device, the other prepares its batch."""
    scale = engine.options.scale
    scorer = engine.opened(scale.rows[0])
    detects = [engine.detect([scorer], scale.batch) for _ in range(_WORKERS)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        runs = {
            "by one thread": lambda: [run() for run in detects],
            "by two": lambda: list(pool.map(lambda run: run(), detects)),
        }
        found = runs_per_s(runs, seconds)
    return _against(found, "by two", "by one thread", _WORKERS * scale.batch)


def _one_image(engine: Engine, seconds: float) -> Measured:
    """As the server reports it, from the images in main memory to the scores there."""
    scorer, inputs = engine.opened(engine.options.scale.rows[0]), model_inputs(1, _SQUARE)
    times, whole_ms = list[ScoringTimes](), list[float]()
    ends_s = time.perf_counter() + seconds
    while time.perf_counter() < ends_s or len(times) < 3:
        started_s = time.perf_counter()
        times.append(scorer.score(inputs)[1])
        whole_ms.append(1000 * (time.perf_counter() - started_s))
    embed_ms = statistics.median(each.embed_ms for each in times)
    search_ms = statistics.median(each.search_ms for each in times)
    more = f"embed {embed_ms:.2f}, search {search_ms:.2f}; for the caller {statistics.median(whole_ms):.2f}"
    return Measured(embed_ms + search_ms, "ms", more=more)


def _stalls(engine: Engine, seconds: float) -> Measured:
    """For each number of images, in any order: its first calls, and how long the slowest of them took."""
    largest = max(engine.options.scale.batches)
    scorer, inputs = engine.opened(engine.options.scale.rows[0]), model_inputs(largest, _SQUARE)
    ends_s, worst, seen = time.perf_counter() + max(seconds, _ALL_BATCHES_S), (0.0, 0, 0.0), 0
    for count in random.Random(0).sample(range(1, largest + 1), largest):
        if time.perf_counter() > ends_s and seen:
            break
        times_ms = []
        for _ in range(5):
            started_s = time.perf_counter()
            scorer.score(inputs[:count])
            times_ms.append(1000 * (time.perf_counter() - started_s))
        worst = max(worst, (max(times_ms) / statistics.median(times_ms), count, max(times_ms)))
        seen += 1
    ratio, count, ms = worst
    more = f"{ms:.1f} ms with {count} images; {seen} of {largest} batch sizes tried"
    return Measured(ratio, "times", more=more, is_whole=seen == largest)


@torch.inference_mode()
def _unresolved(engine: Engine, _: float, rows: int) -> Measured:
    """The share of queries that the fast search leaves to the exact one."""
    scorer = engine.opened(rows)
    assert scorer.plan is not None
    assert isinstance(scorer.plan.bank, DeviceIndex)
    patches = scorer.pipeline.embed(model_inputs(engine.options.scale.batch, _SQUARE)).flatten(0, 1)
    found = search_on_device([(patches, scorer.plan.bank)], scorer.pipeline.neighbor_count)
    return Measured(100 * found.is_unresolved.float().mean().item(), "%")


def _stages(engine: Engine, seconds: float, rows: int, batch: int) -> Measured:
    """Where the time of a call goes: a note below the table."""
    scorer = engine.opened(rows)
    found = stages(scorer, engine.detect([scorer], batch), seconds)
    tell(note=f"Stages of a call, {_title(engine, rows, batch)}:\n\n{found.table}")
    return Measured(found.call_ms, "ms", more="see below")


def _kernels(engine: Engine, seconds: float, rows: int, batch: int) -> Measured:
    scorer = engine.opened(rows)
    busy, table = kernels(scorer.pipeline.runtime.device, engine.detect([scorer], batch), seconds)
    tell(note=f"What the device does in a call, {_title(engine, rows, batch)}:\n\n{table}")
    return Measured(100 * busy, "% of the time", more="see below")


def _title(engine: Engine, rows: int, batch: int) -> str:
    return f"{_images(batch)}, {rows:,} rows, {engine.detector.info.precision}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
