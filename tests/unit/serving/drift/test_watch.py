"""The watch over recent scores: in bounded memory, of the current revision only."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fakes.calls import FakeCall
from fakes.gray import reference
from fakes.waiting import until

from patchserve_server.domain.call_events import CallInfo, current_call
from patchserve_server.domain.drift import UNKNOWN, Drift, DriftState
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ReferenceInfo, ScoreSpread
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.drift import DriftWatch, watch
from patchserve_server.serving.drift.comparison import MIN_RECENT, WINDOW
from patchserve_server.serving.drift.watch import COMPARED_EVERY

NORMAL = tuple(np.linspace(10, 14, 12).tolist())
METHOD = CalibrationMethod.LEAVE_ONE_OUT


def info(reference_id: str = "belt", revision: str = "a", method: CalibrationMethod = METHOD) -> ReferenceInfo:
    calibration = Calibration(method, 15.0, 15.0, ScoreSpread.of(NORMAL))
    return replace(reference(reference_id).info, revision=Revision(revision * 64), calibration=calibration)


class Bench:
    """A watch over references that a test sets, and what it has told."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.known: dict[ReferenceId, ReferenceInfo] = {}
        self.told: list[tuple[ReferenceId, Revision, Drift]] = []
        self.watch = DriftWatch(self.known.get, pool, lambda *told: self.told.append(told))

    def use(self, info: ReferenceInfo) -> ReferenceInfo:
        self.known[info.reference_id] = info
        return info

    async def inspect(self, info: ReferenceInfo, *scores: float) -> Drift:
        """Adds the scores one comparison after the other; returns what is known then."""
        for number in range(0, len(scores), COMPARED_EVERY):
            before = len(self.told)
            for score in scores[number : number + COMPARED_EVERY]:
                self.watch.add(info.reference_id, info.revision, score)
            await until(lambda before=before: len(self.told) > before)  # type: ignore[misc]
        return self.watch.drift_of(info)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as pool:
        yield Bench(pool)


async def test_what_a_comparison_finds_names_no_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[CallInfo | None] = []
    monkeypatch.setattr(watch, "_log_change", lambda *_: calls.append(current_call.get()))
    current_call.set(FakeCall())
    drift = await bench.inspect(bench.use(info()), *np.linspace(30, 40, WINDOW).tolist())
    assert drift.state is DriftState.SCENE_CHANGED
    assert calls == [None]


def like_normal(count: int) -> list[float]:
    return [*map(float, np.random.default_rng(0).choice(NORMAL, count))]


async def test_images_that_come_during_a_comparison_are_compared_after_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        bench, is_free = Bench(pool), threading.Event()
        pool.submit(is_free.wait)
        belt = bench.use(info())
        for score in like_normal(4 * COMPARED_EVERY):
            bench.watch.add(belt.reference_id, belt.revision, score)
        is_free.set()
        await until(lambda: bench.watch.drift_of(belt).image_count == 4 * COMPARED_EVERY)


async def test_images_of_a_server_that_ends_are_not_compared_any_more() -> None:
    failed = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    with ThreadPoolExecutor(1) as pool:
        bench = Bench(pool)
    belt = bench.use(info())
    for score in like_normal(MIN_RECENT):
        bench.watch.add(belt.reference_id, belt.revision, score)
    for _ in range(3):
        await asyncio.sleep(0)
    del bench
    gc.collect()
    assert not failed


async def test_too_few_images_then_none_then_another_scene(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=watch.__name__)

    def logged() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == watch.__name__]

    belt = bench.use(info())
    assert bench.watch.drift_of(belt) == UNKNOWN
    assert await bench.inspect(belt, *like_normal(16)) == Drift(DriftState.TOO_FEW_IMAGES, 16)
    drift = await bench.inspect(belt, *like_normal(48))
    assert (drift.state, drift.image_count) == (DriftState.NONE, 64)
    assert not logged()  # a beginning is no news
    drift = await bench.inspect(belt, *[30.0] * MIN_RECENT)
    assert drift.state is DriftState.SCENE_CHANGED
    assert drift.since is not None
    (record,) = logged()
    assert (record.levelname, "'belt'" in record.getMessage()) == ("WARNING", True)
    again = await bench.inspect(belt, *[30.0] * 32)
    assert again.since == drift.since
    assert [(reading.labels, reading.value) for reading in bench.watch.readings()] == [(("belt",), 1.0)]
    assert len(logged()) == 1  # nothing new
    assert (await bench.inspect(belt, *like_normal(WINDOW))).state is DriftState.NONE
    assert logged()[-1].levelname == "INFO"


async def test_another_revision_begins_again(bench: Bench) -> None:
    old = bench.use(info())
    await bench.inspect(old, *[30.0] * MIN_RECENT)
    assert bench.told[-1][2].state is DriftState.SCENE_CHANGED
    new = bench.use(info(revision="b"))
    assert bench.watch.drift_of(new) == UNKNOWN
    assert not list(bench.watch.readings())
    bench.watch.add(new.reference_id, new.revision, 12.0)
    assert bench.told[-1] == (new.reference_id, new.revision, UNKNOWN)  # whoever shows the old state hears of it
    bench.watch.add(old.reference_id, old.revision, 30.0)  # of a stream that keeps its revision
    assert await bench.inspect(new, *like_normal(15)) == Drift(DriftState.TOO_FEW_IMAGES, 16)


async def test_a_comparison_that_a_new_revision_overtakes_tells_nothing(bench: Bench) -> None:
    old = bench.use(info())
    for _ in range(MIN_RECENT):
        bench.watch.add(old.reference_id, old.revision, 30.0)
    new = bench.use(info(revision="b"))
    bench.watch.add(new.reference_id, new.revision, 12.0)
    await asyncio.sleep(0.2)
    assert all(told[2].state is DriftState.TOO_FEW_IMAGES for told in bench.told)
    assert bench.watch.drift_of(new) == UNKNOWN


async def test_without_scores_of_different_items_there_are_always_too_few(bench: Bench) -> None:
    belt = bench.use(info(method=CalibrationMethod.AUGMENTED_VIEWS))
    assert await bench.inspect(belt, *[30.0] * 64) == Drift(DriftState.TOO_FEW_IMAGES, 64)


async def test_the_references_inspected_last_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_REFERENCES", 3)
    for name in ("a", "b", "c", "a", "d", "e"):
        used = bench.use(info(name))
        bench.watch.add(used.reference_id, used.revision, 12.0)
    assert [known[0] for known in bench.watch.known()] == ["a", "d", "e"]


async def test_scores_of_a_reference_that_is_gone_are_not_kept(bench: Bench) -> None:
    gone = info()
    bench.watch.add(gone.reference_id, gone.revision, 12.0)
    assert not list(bench.watch.known())


async def test_a_window_is_bounded(bench: Bench) -> None:
    belt = bench.use(info())
    assert (await bench.inspect(belt, *like_normal(2 * WINDOW))).image_count == WINDOW
