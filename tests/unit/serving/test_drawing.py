"""BatchedDrawing: overlays that wait are drawn together, in turn between clients, and nobody is hurt by another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.detector import FakeDetector
from fakes.jpegs import gray_file
from fakes.waiting import settle, until

from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.serving import drawing
from patchserve_server.serving.drawing import BatchedDrawing
from patchserve_server.serving.fairness import FlowKey

FLOW = FlowKey("a")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def overlay(level: int = 0) -> OverlayDrawing:
    return OverlayDrawing(gray_file(level), np.zeros((4, 4), np.uint8), HeatmapScale.CALIBRATED, (24, 20))


class Bench:
    """A detector that draws only while its gate is open, and what waits for it."""

    def __init__(self, pool: ThreadPoolExecutor, max_batch_size: int = 3) -> None:
        self.detector = FakeDetector(decode="device")
        self.drawing = BatchedDrawing(self.detector, pool, workers=1, max_batch_size=max_batch_size)

    async def held(self, *waiting: tuple[OverlayDrawing, FlowKey]) -> list[asyncio.Task[bytes]]:
        """The first one is being drawn; the others wait for it."""
        self.detector.drawing_gate.clear()
        first = asyncio.create_task(self.drawing.draw(overlay(), FLOW))
        await until(lambda: len(self.detector.drawing_batches) == 1)
        tasks = [asyncio.create_task(self.drawing.draw(*each)) for each in waiting]
        await settle()
        return [first, *tasks]


async def test_overlays_that_wait_are_drawn_in_one_batch(pool: ThreadPoolExecutor) -> None:
    bench, drawings = Bench(pool), [overlay(level) for level in (1, 2, 3, 4)]
    tasks = await bench.held(*((each, FLOW) for each in drawings))
    assert bench.drawing.longest_s > 0
    bench.detector.drawing_gate.set()
    drawn = await asyncio.gather(*tasks)
    assert drawn[1:] == [each.file.data for each in drawings], "each has its own"
    assert bench.detector.drawing_batches == [1, 3, 1]
    assert bench.drawing.longest_s == 0


async def test_clients_take_turns(pool: ThreadPoolExecutor) -> None:
    bench = Bench(pool, max_batch_size=2)
    of_a, of_b = [overlay(level) for level in (1, 2, 3)], overlay(9)
    tasks = await bench.held(*((each, FLOW) for each in of_a), (of_b, FlowKey("b")))
    bench.detector.drawing_gate.set()
    await asyncio.gather(*tasks)
    assert [each.file for each in bench.detector.drawings[1:3]] == [of_a[0].file, of_b.file]


async def test_an_overlay_whose_caller_has_left_is_not_drawn(pool: ThreadPoolExecutor) -> None:
    bench, left, kept = Bench(pool), overlay(1), overlay(2)
    tasks = await bench.held((left, FLOW), (kept, FLOW))
    tasks[1].cancel()
    bench.detector.drawing_gate.set()
    assert await tasks[2] == kept.file.data
    assert left.file not in [each.file for each in bench.detector.drawings]


async def test_a_caller_may_leave_while_its_overlay_is_drawn(pool: ThreadPoolExecutor) -> None:
    bench = Bench(pool)
    first, later = await bench.held((overlay(1), FLOW))
    first.cancel()
    bench.detector.drawing_gate.set()
    assert await later
    assert first.cancelled()


async def test_what_the_device_cannot_draw_costs_no_other_overlay(pool: ThreadPoolExecutor) -> None:
    bench, drawings = Bench(pool), [overlay(1), overlay(2), overlay(3)]
    bench.detector.is_undrawable = lambda file: file is drawings[1].file
    tasks = await bench.held(*((each, FLOW) for each in drawings))
    bench.detector.drawing_gate.set()
    outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert isinstance(outcomes[1], DeviceCodecError)
    assert outcomes[::2] == [drawings[0].file.data, drawings[2].file.data]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), MemoryError(), None])
async def test_what_the_device_fails_to_draw_is_for_the_cpu(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    bench = Bench(pool)
    draw = bench.detector.draw

    def fail_once(drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        monkeypatch.setattr(bench.detector, "draw", draw)
        if failure is None:  # it forgets the last one
            return draw(drawings)[:-1]
        raise failure

    monkeypatch.setattr(bench.detector, "draw", fail_once)
    with pytest.raises(DeviceCodecError):
        await asyncio.wait_for(bench.drawing.draw(overlay(), FLOW), 10)
    assert await bench.drawing.draw(overlay(), FLOW)


async def test_overlays_of_many_pixels_form_smaller_batches(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_FULL_BATCH_PIXELS", 4 * 24 * 20)
    bench = Bench(pool, max_batch_size=8)
    tasks = await bench.held(*((overlay(level), FLOW) for level in (1, 2, 3)))
    bench.detector.drawing_gate.set()
    await asyncio.gather(*tasks)
    assert bench.detector.drawing_batches == [1, 2, 1]


async def test_nobody_waits_for_a_pool_that_has_ended(pool: ThreadPoolExecutor) -> None:
    bench = Bench(pool)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        await asyncio.wait_for(bench.drawing.draw(overlay(), FLOW), 10)
    assert bench.drawing.longest_s == 0
