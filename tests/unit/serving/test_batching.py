"""Batcher: waiting images share a batch, and each caller gets its own scores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from fakes.detector import FakeDetector, FakeScorer, fake_model
from fakes.gray import gray_input, reference, scorer
from fakes.jpegs import gray_file
from fakes.references import named
from fakes.waiting import until

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.ports import ScoredPart, Scorer, ScorerInputs, ScoringTimes
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.serving import batching
from patchserve_server.serving.batching import BatchedScores, Batcher
from patchserve_server.serving.fairness import FlowKey

FLOW = FlowKey("a")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@dataclass(frozen=True, eq=False)
class SlowScorer(FakeScorer):
    gate: threading.Event = field(default_factory=threading.Event)

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        assert self.gate.wait(30)
        return super().score(inputs)


async def wait_for_batches(detector: FakeDetector, count: int) -> None:
    await until(lambda: len(detector.batches) >= count)


async def test_an_image_whose_caller_has_left_is_not_kept(pool: ThreadPoolExecutor) -> None:
    """Its turn is given back: callers who leave and come again must not fill the memory while a batch takes long."""
    detector = FakeDetector(decode="device")
    batcher = Batcher(detector, pool, workers=1, max_batch_size=3, max_queue_delay_s=0)
    target = scorer(reference(level=100))
    detector.gate.clear()
    held = asyncio.create_task(batcher.score(target, gray_file(100), FLOW))
    await wait_for_batches(detector, 1)
    left = [asyncio.create_task(batcher.score(target, gray_file(level), FLOW)) for level in range(5)]
    kept = asyncio.create_task(batcher.score(target, gray_file(110), FLOW))
    await until(lambda: batcher.waiting == 6)
    for call in left:
        call.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert batcher.waiting == 1
    detector.gate.set()
    assert (await held).raw.image_score == 0
    assert (await kept).raw.image_score == 10


async def test_waiting_images_are_scored_in_one_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=3, max_queue_delay_s=0)
    target = scorer(reference(level=100))
    detector.gate.clear()
    calls = [asyncio.create_task(batcher.score(target, gray_input(level), FLOW)) for level in (100, 110, 120, 130, 140)]
    await wait_for_batches(detector, 1)
    detector.gate.set()
    raw_scores = [(await call).raw.image_score for call in calls]
    assert raw_scores == [0, 10, 20, 30, 40]
    assert detector.batches == [1, 3, 1]  # the worker was free when the first image came


async def assert_batches_of_two(
    detector: FakeDetector, pool: ThreadPoolExecutor, image_of: Callable[[int], ModelInputs | JpegFile]
) -> None:
    """Of four images, the first is alone, because the worker was free."""
    batcher = Batcher(detector, pool, workers=1, max_batch_size=8, max_queue_delay_s=0)
    target = scorer(reference(level=0))
    detector.gate.clear()
    calls = [asyncio.create_task(batcher.score(target, image_of(level), FLOW)) for level in (0, 1, 2, 3)]
    await wait_for_batches(detector, 1)
    detector.gate.set()
    assert [(await call).raw.image_score for call in calls] == [0, 1, 2, 3]
    assert detector.batches == [1, 2, 1]


async def test_large_images_form_smaller_batches(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FakeDetector()
    monkeypatch.setattr(batching, "_FULL_BATCH_BYTES", 2 * gray_input(0).nbytes)
    await assert_batches_of_two(detector, pool, gray_input)


async def test_a_single_image_does_not_wait_for_others(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=8, max_queue_delay_s=0)
    await batcher.score(scorer(reference()), gray_input(0), FLOW)
    assert detector.batches == [1]


async def test_an_image_waits_for_others_at_most_for_the_maximum_delay(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=8, max_queue_delay_s=0.05)
    scored = await batcher.score(scorer(reference()), gray_input(0), FLOW)
    assert detector.batches == [1]
    assert scored.queue_ms >= 50


async def test_a_full_batch_ends_the_wait(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=2, max_queue_delay_s=3600)
    dark, bright = (scorer(reference(level=level)) for level in (0, 200))
    calls = [asyncio.create_task(batcher.score(each, gray_input(0), FLOW)) for each in (dark, bright, dark, bright)]
    assert [(await call).raw.image_score for call in calls] == [0, 200, 0, 200]
    assert detector.batches == [2, 2], "of both references"


async def test_a_caller_that_leaves_does_not_end_the_wait_of_others(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=2, max_queue_delay_s=0.05)
    target = scorer(reference(level=0))
    leaving = asyncio.create_task(batcher.score(target, gray_input(0), FLOW))
    await asyncio.sleep(0)
    leaving.cancel()
    await batcher.score(target, gray_input(0), FLOW)
    assert detector.batches == [1]


async def test_waiting_images_of_all_references_are_scored_in_one_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=8, max_queue_delay_s=0)
    dark, bright = (scorer(reference(level=level)) for level in (0, 200))
    detector.gate.clear()
    first = asyncio.create_task(batcher.score(dark, gray_input(0), FLOW))
    await wait_for_batches(detector, 1)
    calls = [asyncio.create_task(batcher.score(each, gray_input(200), FLOW)) for each in (dark, bright, dark, bright)]
    await asyncio.sleep(0)
    detector.gate.set()
    await first
    assert [(await call).raw.image_score for call in calls] == [200, 0, 200, 0]
    assert detector.batches == [1, 4]


async def test_an_image_whose_caller_has_left_is_skipped(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=1, max_queue_delay_s=0)
    target = scorer(reference())
    detector.gate.clear()
    calls = [asyncio.create_task(batcher.score(target, gray_input(0), FLOW)) for _ in range(3)]
    await wait_for_batches(detector, 1)
    calls[1].cancel()
    detector.gate.set()
    await calls[2]
    assert detector.batches == [1, 1]
    assert calls[1].cancelled()


async def test_a_failure_affects_only_its_own_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=1, max_queue_delay_s=0)
    target = scorer(reference())
    detector.failure = RuntimeError("boom")
    first, second = (asyncio.create_task(batcher.score(target, gray_input(0), FLOW)) for _ in range(2))
    with pytest.raises(RuntimeError, match="boom"):
        await first
    assert (await second).raw.image_score == 100


async def test_an_image_that_cannot_be_scored_costs_no_other_image_of_its_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=3600)
    target, other = scorer(reference()), scorer(reference("other", level=90))
    wrong = gray_input(0)[:2, :2]
    inputs = [(target, gray_input(0)), (target, wrong), (other, gray_input(0)), (other, gray_input(10))]
    calls = [asyncio.create_task(batcher.score(*each, FLOW)) for each in inputs]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes.pop(1), ValueError)
    assert [scored.raw.image_score for scored in outcomes if isinstance(scored, BatchedScores)] == [100, 90, 80]
    assert detector.batches == [4]


async def test_a_reference_that_is_scored_first_does_not_wait_for_the_others(pool: ThreadPoolExecutor) -> None:
    detector, slow_gate = FakeDetector(), threading.Event()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=2, max_queue_delay_s=3600)
    fast, slow = scorer(reference(level=0)), SlowScorer(reference("slow", level=0).model, gate=slow_gate)
    calls = [asyncio.create_task(batcher.score(each, gray_input(0), FLOW)) for each in (fast, slow)]
    await calls[0]
    assert not calls[1].done()
    slow_gate.set()
    await calls[1]
    assert detector.batches == [2]


async def test_only_equal_batch_keys_share_a_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=8, max_queue_delay_s=0)
    small, large = gray_input(0), gray_input(0).repeat(2, axis=0)
    targets = [scorer(named(fake_model(each[None], ReferenceOptions()))) for each in (small, large)]
    detector.gate.clear()
    first = asyncio.create_task(batcher.score(targets[0], small, FLOW))
    await wait_for_batches(detector, 1)
    inputs = list(zip(targets, (small, large), strict=True)) * 2
    calls = [asyncio.create_task(batcher.score(*each, FLOW)) for each in inputs]
    await asyncio.sleep(0)
    detector.gate.set()
    await asyncio.gather(first, *calls)
    assert detector.batches == [1, 2, 2]


async def test_clients_take_turns_in_every_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=0)
    target = scorer(reference(level=0))
    detector.gate.clear()
    crowd = [asyncio.create_task(batcher.score(target, gray_input(0), FlowKey("crowd"))) for _ in range(40)]
    await wait_for_batches(detector, 1)
    lone = asyncio.create_task(batcher.score(target, gray_input(0), FlowKey("lone")))
    await asyncio.sleep(0)
    detector.gate.set()
    await lone
    assert sum(call.done() for call in crowd) <= 1 + 3, "it is in the next batch"
    await asyncio.gather(*crowd)


async def test_an_image_of_another_key_does_not_wait_while_the_batches_take_others_of_its_client(
    pool: ThreadPoolExecutor,
) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=0)
    small, large = gray_input(0), gray_input(0).repeat(2, axis=0)
    common, own = (scorer(named(fake_model(each[None], ReferenceOptions()))) for each in (small, large))
    detector.gate.clear()
    calls = [asyncio.create_task(batcher.score(common, small, FlowKey("a"))) for _ in range(20)]
    await wait_for_batches(detector, 1)
    lone = asyncio.create_task(batcher.score(own, large, FlowKey("b")))
    calls += [asyncio.create_task(batcher.score(common, small, FlowKey("b"))) for _ in range(20)]
    await asyncio.sleep(0)
    detector.gate.set()
    await asyncio.gather(lone, *calls)
    assert detector.batches[:3] == [1, 4, 1]


async def test_clients_share_a_batch_equally_if_one_of_them_has_another_key_before(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=0)
    small, large = gray_input(0), gray_input(0).repeat(2, axis=0)
    common, own = (scorer(named(fake_model(each[None], ReferenceOptions()))) for each in (small, large))
    detector.gate.clear()
    first = asyncio.create_task(batcher.score(common, small, FLOW))
    await wait_for_batches(detector, 1)
    order = list[str]()

    async def score(target: FakeScorer, image: ModelInputs, client: str) -> None:
        await batcher.score(target, image, FlowKey(client))
        order.append(client if target is common else "other key")

    calls = [score(common, small, "a"), score(own, large, "b")]
    calls += [score(common, small, client) for client in "bbbbaaaa"]
    gathered = asyncio.gather(first, *calls)
    await asyncio.sleep(0)
    detector.gate.set()
    await gathered
    assert sorted(order[:4]) == ["a", "a", "b", "b"]
    assert order[4] == "other key"


async def test_an_image_without_an_outcome_fails(pool: ThreadPoolExecutor) -> None:
    class Silent(FakeDetector):
        def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
            yield from list(super().score_batch(batch))[:1]

    batcher = Batcher(Silent(), pool, workers=1, max_batch_size=2, max_queue_delay_s=3600)
    targets = [scorer(reference(name, level=0)) for name in ("one", "two")]
    calls = [asyncio.create_task(batcher.score(each, gray_input(0), FLOW)) for each in targets]
    async with asyncio.timeout(30):
        assert (await calls[0]).raw.image_score == 0
        with pytest.raises(RuntimeError, match="no scores"):
            await calls[1]


async def test_files_and_model_inputs_share_a_batch(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector(decode="device")
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=3600)
    dark, bright = scorer(reference(level=0)), scorer(reference(level=200))
    images: list[tuple[FakeScorer, ModelInputs | JpegFile]] = [
        (dark, gray_file(10)),
        (bright, gray_input(190)),
        (dark, gray_input(20)),
        (bright, gray_file(180)),
    ]
    scored = await asyncio.gather(*(batcher.score(*each, FLOW) for each in images))
    assert [each.raw.image_score for each in scored] == [10, 10, 20, 20]
    assert detector.batches == [4]
    assert {each.times.decode_ms for each in scored} == {2}


async def test_a_file_that_the_device_cannot_decode_costs_no_other_image_of_its_part(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector(decode="device")
    batcher = Batcher(detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=3600)
    target, files = scorer(reference(level=0)), [gray_file(level) for level in (10, 20, 30, 40)]
    detector.is_unknown = lambda file: file in (files[0], files[2])
    outcomes = await asyncio.gather(*(batcher.score(target, file, FLOW) for file in files), return_exceptions=True)
    assert [type(each) for each in outcomes[::2]] == [DeviceCodecError, DeviceCodecError]
    assert [each.raw.image_score for each in outcomes if isinstance(each, BatchedScores)] == [20, 40]


async def test_a_batch_whose_files_are_all_unknown_has_no_other_failure(pool: ThreadPoolExecutor) -> None:
    detector = FakeDetector(decode="device")
    batcher = Batcher(detector, pool, workers=1, max_batch_size=1, max_queue_delay_s=0)
    detector.is_unknown = lambda _: True
    with pytest.raises(DeviceCodecError):
        await batcher.score(scorer(reference()), gray_file(10), FLOW)


async def test_files_of_many_pixels_form_smaller_batches_and_their_bytes_do_not_count(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = FakeDetector(decode="device")
    monkeypatch.setattr(batching, "_FULL_BATCH_BYTES", 1)  # of model inputs, which are copied
    monkeypatch.setattr(batching, "_FULL_BATCH_PIXELS", 2 * 24 * 20)
    await assert_batches_of_two(detector, pool, gray_file)
