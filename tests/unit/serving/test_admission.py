"""Admission: limits are never exceeded, nothing leaks, and every waiting stream gets its turn."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from fakes.waiting import settle
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.serving.admission import Admission, Capacity, Permit
from patchserve_server.serving.fairness import FlowKey

MESSAGE = Capacity(1, 100)


def admission(count: int = 8, nbytes: int = 800, share: float = 1.0) -> Admission:
    return Admission("image", Capacity(count, nbytes), share=share, largest=MESSAGE)


@pytest.mark.parametrize("capacity", [Capacity(9, 0), Capacity(1, 801)])
def test_a_single_call_over_the_limit_is_rejected_with_a_delay(capacity: Capacity) -> None:
    with pytest.raises(QueueFullError, match="Try again") as caught:
        admission().acquire("a", capacity)
    assert caught.value.retry_after_s


def test_rejections_are_logged_as_a_sum(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    images = admission()

    def reject(times: int) -> None:
        for _ in range(times):
            with pytest.raises(QueueFullError):
                images.acquire("a", Capacity(9))

    reject(5)
    now_s += 10
    reject(2)
    assert [record.getMessage() for record in caplog.records] == [
        "Rejected 1 call: image limit reached",
        "Rejected 5 calls in 10 s: image limit reached",
    ]


def test_whoever_listens_hears_of_every_rejection() -> None:
    rejected: list[None] = []
    images = Admission("image", Capacity(1), share=1, largest=Capacity(1), on_rejection=lambda: rejected.append(None))
    with images.acquire("a", Capacity(1)):
        for _ in range(3):
            with pytest.raises(QueueFullError):
                images.acquire("b", Capacity(1))
    assert len(rejected) == 3


def test_a_rejection_names_the_limit() -> None:
    calls = Admission("call", Capacity(1), share=1, largest=Capacity(1))
    for limited, capacity, expected in (
        (admission(nbytes=2**21), Capacity(9), "This client has reached its limit of 8 images and 2 MiB in total."),
        (calls, Capacity(2), "This client has reached its limit of 1 call."),
    ):
        with pytest.raises(QueueFullError, match=expected):
            limited.acquire("a", capacity)
    images = admission(share=0.5)
    images.acquire("a", Capacity(4))
    with pytest.raises(QueueFullError, match="Beside other clients, this one has 2 images and 0 MiB"):
        images.acquire("b", Capacity(3))
    for client in "bcde":
        images.acquire(client, Capacity(1))
    with pytest.raises(QueueFullError, match="The server has reached its limit of 8 images"):
        images.acquire("f", Capacity(1))


@given(requests=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=300), share=st.floats(0.1, 0.9))
def test_however_much_others_ask_for_there_is_room_for_the_next_client(
    requests: list[tuple[int, int]], share: float
) -> None:
    """Five greedy clients, of which each holds what it gets and asks for more."""
    images = Admission("image", Capacity(1000), share=share, largest=Capacity(1))
    for client, count in requests:
        with suppress(QueueFullError):
            images.acquire(f"greedy {client}", Capacity(count))
    assert images.acquire("modest", Capacity(1))


def test_a_client_that_has_its_share_of_the_rest_is_told_apart_from_a_full_server() -> None:
    """Otherwise idle calls of others would end for it although there are places."""
    calls = admission(count=8, nbytes=800, share=0.5)
    calls.acquire("others", Capacity(4))
    calls.acquire("greedy", Capacity(2))
    assert not calls.is_within_share("greedy", Capacity(1))
    calls.acquire("a", Capacity(1))
    calls.acquire("b", Capacity(1))
    assert calls.is_within_share("next", Capacity(1)), "the server is full: others have to give one back"


def test_greedy_clients_come_to_hold_the_same() -> None:
    images = admission(count=64, nbytes=6400, share=0.5)
    held: dict[str, list[Permit]] = {client: [] for client in "abc"}
    for _ in range(100):
        for client, permits in held.items():
            with suppress(QueueFullError):
                while True:
                    permits.append(images.acquire(client, Capacity(1)))
            permits.pop().release()
    assert all(15 <= len(permits) <= 16 for permits in held.values())


def test_a_permit_grows_to_what_is_needed_and_releases_all_of_it() -> None:
    images = admission()
    with images.acquire("a", Capacity(1)) as permit:
        permit.grow(Capacity(3, 300))
        assert permit.capacity == Capacity(3, 300)
        permit.grow(Capacity(2, 400))  # it never shrinks
        assert permit.capacity == Capacity(3, 400)
        with pytest.raises(QueueFullError):
            images.acquire("b", Capacity(6))
        with pytest.raises(QueueFullError):
            images.acquire("b", Capacity(1, 401))
        assert images.acquire("b", Capacity(5, 400))
    assert images.acquire("c", Capacity(3, 400))


@pytest.mark.parametrize("needed", [Capacity(9), Capacity(1, 801), Capacity(9, 801)])
def test_a_permit_that_cannot_grow_is_unchanged(needed: Capacity) -> None:
    images = admission()
    with images.acquire("a", Capacity(1, 10)) as permit:
        with pytest.raises(QueueFullError):
            permit.grow(needed)
        assert permit.capacity == Capacity(1, 10)
        assert images.acquire("b", Capacity(7, 790))


def test_an_empty_permit_takes_nothing_and_is_never_rejected() -> None:
    images = admission(count=1)
    with images.acquire("a", Capacity(1)), images.permit("a") as permit:
        permit.grow(Capacity())
        with pytest.raises(QueueFullError):
            permit.grow(Capacity(1))
    permit.grow(Capacity(1))


async def test_a_permit_may_grow_in_bytes_but_not_in_images_while_a_stream_waits() -> None:
    images = admission()
    calls = [images.acquire("calls", Capacity(1)) for _ in range(8)]
    frame = asyncio.create_task(images.acquire_for_stream(FlowKey("camera", 1), Capacity(1, 10)))
    await settle()
    calls[0].grow(Capacity(1, 100))
    for permit in calls[1:3]:
        permit.release()
    assert (await frame).capacity == Capacity(1, 10)
    waiting = asyncio.create_task(images.acquire_for_stream(FlowKey("camera", 1), Capacity(3, 500)))
    await settle()
    with pytest.raises(QueueFullError):
        calls[0].grow(Capacity(2))
    waiting.cancel()


def test_a_permit_is_released_only_once() -> None:
    images = admission(count=2)
    first, second = images.acquire("a", Capacity(1)), images.acquire("b", Capacity(1))
    with pytest.raises(QueueFullError):
        images.acquire("c", Capacity(1))
    first.release()
    first.release()
    with images.acquire("c", Capacity(1)), pytest.raises(QueueFullError):
        images.acquire("d", Capacity(1))
    second.release()
    assert images.acquire("a", Capacity(2))


def test_one_client_cannot_take_everything() -> None:
    images = admission(count=8, share=0.25)
    assert images.client_limit == Capacity(2, 200)
    images.acquire("greedy", Capacity(1, 100))
    images.acquire("greedy", Capacity(1, 0))
    for capacity in (Capacity(1), Capacity(0, 101)):
        with pytest.raises(QueueFullError, match="This client"):
            images.acquire("greedy", capacity)
    assert images.acquire("other", Capacity(1, 100))


def test_a_client_share_is_never_less_than_one_message() -> None:
    assert admission(count=2, nbytes=150, share=0.1).client_limit == Capacity(1, 100)


def test_streams_leave_half_of_the_limit_to_single_calls() -> None:
    async def run() -> None:
        images, flow = admission(), FlowKey("a", 1)
        frames = [images.try_acquire_for_stream(flow, Capacity(1, 10)) for _ in range(6)]
        assert [frame is not None for frame in frames] == [True] * 4 + [False] * 2
        assert images.acquire("b", Capacity(4))

    asyncio.run(run())


async def test_single_calls_leave_half_of_the_limit_to_a_waiting_stream() -> None:
    images = admission()
    calls = [images.acquire("calls", Capacity(1)) for _ in range(8)]
    frame = asyncio.create_task(images.acquire_for_stream(FlowKey("camera", 1), Capacity(1, 10)))
    await settle()
    assert not frame.done()
    calls.pop().release()
    assert (await frame).capacity == Capacity(1, 10)
    frames = [asyncio.create_task(images.acquire_for_stream(FlowKey("camera", 1), Capacity(1, 10))) for _ in range(3)]
    await settle()
    for _ in range(3):
        calls.pop().release()
        with pytest.raises(QueueFullError):
            images.acquire("calls", Capacity(1))
    assert all([await frame for frame in frames])
    assert len(calls) == 4


async def test_streams_of_a_client_leave_half_of_its_share_to_its_single_calls() -> None:
    images = admission(count=16, nbytes=1600, share=0.5)
    frames = [images.try_acquire_for_stream(FlowKey("a", 1 + number % 4), Capacity(1, 10)) for number in range(8)]
    assert [frame is not None for frame in frames] == [True] * 4 + [False] * 4
    assert images.acquire("a", Capacity(4))
    with pytest.raises(QueueFullError, match="This client"):
        images.acquire("a", Capacity(1))


async def test_a_batch_larger_than_half_of_a_clients_share_is_admitted_alone() -> None:
    images = admission(count=16, nbytes=1600, share=0.5)
    frame = await images.acquire_for_stream(FlowKey("a", 1), Capacity(1, 10))
    batch = asyncio.create_task(images.acquire_for_stream(FlowKey("a", 2), Capacity(8, 80)))
    await settle()
    assert not batch.done()
    frame.release()
    assert (await asyncio.wait_for(batch, 10)).capacity == Capacity(8, 80)


async def test_streams_and_clients_take_turns() -> None:
    images, admitted = admission(count=2), []
    held = await images.acquire_for_stream(FlowKey("x", 1), MESSAGE)

    async def wait(client: str, stream: int) -> None:
        with await images.acquire_for_stream(FlowKey(client, stream), MESSAGE):
            admitted.append((client, stream))

    waiting = [asyncio.create_task(wait(*flow)) for flow in [("a", 1)] * 3 + [("a", 2), ("b", 3)]]
    await settle()
    held.release()
    await asyncio.gather(*waiting)
    assert admitted == [("a", 1), ("b", 3), ("a", 2), ("a", 1), ("a", 1)]


async def test_a_client_at_its_limit_does_not_block_others() -> None:
    images = admission(count=8, share=0.5)
    for _ in range(2):
        await images.acquire_for_stream(FlowKey("greedy", 1), Capacity(1))
    blocked = asyncio.create_task(images.acquire_for_stream(FlowKey("greedy", 1), Capacity(1)))
    await settle()
    assert await asyncio.wait_for(images.acquire_for_stream(FlowKey("other", 2), Capacity(1)), 10)
    assert not blocked.done()
    blocked.cancel()


async def test_small_frames_do_not_block_a_large_one() -> None:
    images = admission(count=100, nbytes=200)  # streams: 100
    held = await images.acquire_for_stream(FlowKey("a", 1), Capacity(1, 60))
    large = asyncio.create_task(images.acquire_for_stream(FlowKey("b", 2), Capacity(1, 100)))
    await settle()
    assert images.try_acquire_for_stream(FlowKey("a", 1), Capacity(1, 10)) is None
    small = asyncio.create_task(images.acquire_for_stream(FlowKey("a", 1), Capacity(1, 10)))
    await settle()
    held.release()
    (await large).release()
    assert await small


async def test_a_result_larger_than_its_image_counts_in_full() -> None:
    images = admission(count=8, nbytes=800)
    permit = await images.acquire_for_stream(FlowKey("a", 1), Capacity(1, 10))
    permit.resize(750)
    with pytest.raises(QueueFullError):
        images.acquire("b", Capacity(1, 60))
    permit.release()
    permit.resize(750)
    assert images.acquire("b", Capacity(1, 800))


async def test_a_cancelled_wait_lets_the_next_waiting_frame_in() -> None:
    images = admission(count=100, nbytes=200)
    held = await images.acquire_for_stream(FlowKey("a", 1), Capacity(1, 50))
    large = asyncio.create_task(images.acquire_for_stream(FlowKey("b", 2), Capacity(1, 100)))
    small = asyncio.create_task(images.acquire_for_stream(FlowKey("c", 3), Capacity(1, 10)))
    await settle()
    assert not small.done()
    large.cancel()
    assert await asyncio.wait_for(small, 10)
    held.release()


@pytest.mark.parametrize("seed", range(20))
async def test_cancelling_at_any_moment_loses_no_capacity_and_exceeds_no_limit(seed: int) -> None:
    rng, images, held = random.Random(seed), admission(count=8, nbytes=800, share=0.5), Capacity()

    async def use(permit: Permit) -> None:
        nonlocal held
        with permit:
            held += permit.capacity
            assert held.fits(images.limit)
            try:
                await asyncio.sleep(0)
            finally:
                held -= permit.capacity

    async def call() -> None:
        capacity = Capacity(1, rng.randrange(1, 100))
        if rng.random() < 0.5:
            await use(await images.acquire_for_stream(FlowKey(rng.choice("abc"), rng.randrange(1, 3)), capacity))
            return
        try:
            permit = images.acquire(rng.choice("abc"), capacity)
        except QueueFullError:
            return
        await use(permit)

    tasks = [asyncio.create_task(call()) for _ in range(60)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rng.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
    assert images.held == Capacity(), "all capacity is free again"


async def test_a_lower_limit_takes_nothing_away_and_a_higher_one_is_granted_at_once() -> None:
    images = admission()
    held = [images.acquire(client, MESSAGE) for client in "abcd"]
    images.change_limit(Capacity(2, 200))
    assert images.held == Capacity(4, 400)
    with pytest.raises(QueueFullError, match="its limit of 2 images"):
        images.acquire("e", MESSAGE)
    waiting = [asyncio.create_task(images.acquire_for_stream(FlowKey.of_stream(name), MESSAGE)) for name in "xyz"]
    await settle()
    assert not any(task.done() for task in waiting)
    images.change_limit(Capacity(20, 2000))
    granted = await asyncio.gather(*waiting)
    for permit in (*held, *granted):
        permit.release()
    assert images.held == Capacity()


async def test_what_waits_when_the_limit_becomes_lower_holds_up_nobody_for_good() -> None:
    images = admission(share=1)
    first = await images.acquire_for_stream(FlowKey.of_stream("a"), Capacity(4, 400))
    large = asyncio.create_task(images.acquire_for_stream(FlowKey.of_stream("b"), Capacity(4, 400)))
    small = asyncio.create_task(images.acquire_for_stream(FlowKey.of_stream("c"), MESSAGE))
    await settle()
    images.change_limit(Capacity(4, 400))  # of which streams may hold half
    assert not large.done()
    first.release()
    (await large).release()
    (await small).release()


@pytest.mark.parametrize("limit", [Capacity(2, 200), Capacity(3, 300), Capacity(4, 350)])
async def test_a_stream_that_began_with_a_higher_limit_goes_on_beside_others(limit: Capacity) -> None:
    images = admission()
    images.change_limit(limit)
    calls = images.acquire("caller", MESSAGE)
    for _ in range(2):
        async with asyncio.timeout(10):
            batch = await images.acquire_for_stream(FlowKey.of_stream("a"), Capacity(4, 400))
        small = asyncio.create_task(images.acquire_for_stream(FlowKey.of_stream("b"), MESSAGE))
        await settle()
        assert not small.done(), "what exceeds the limit has all of it"
        batch.release()
        async with asyncio.timeout(10):
            (await small).release()
    calls.release()
    assert images.held == Capacity()
