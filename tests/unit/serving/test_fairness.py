"""FairQueue and FairSemaphore: clients take turns, then the streams of each; no item is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict

import pytest
from fakes.waiting import settle
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.fairness import FairQueue, FairSemaphore, FlowKey

FLOWS = st.builds(FlowKey, st.sampled_from("abc"), st.integers(0, 2))


def drain(queue: FairQueue[object]) -> list[FlowKey]:
    order = []
    while (head := queue.head()) is not None:
        queue.pop(head[0])
        order.append(head[0])
    return order


def test_each_stream_has_its_own_flow() -> None:
    first, second = FlowKey.of_stream("a"), FlowKey.of_stream("a")
    assert first != second
    assert first.is_stream
    assert not FlowKey("a").is_stream


@given(st.lists(FLOWS, max_size=40))
def test_every_item_comes_out_once_and_in_the_order_of_its_flow(flows: list[FlowKey]) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, flow in enumerate(flows):
        queue.push(flow, number)
    popped: dict[FlowKey, list[int]] = defaultdict(list)
    while (head := queue.head()) is not None:
        assert queue.pop(head[0]) == head[1]
        popped[head[0]].append(head[1])
    assert not queue
    assert {flow: [n for n, other in enumerate(flows) if other == flow] for flow in set(flows)} == dict(popped)


@given(st.lists(st.tuples(FLOWS, st.booleans()), max_size=40))
def test_taken_items_are_the_eligible_ones_and_the_others_keep_their_order(items: list[tuple[FlowKey, bool]]) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (flow, _) in enumerate(items):
        queue.push(flow, number)
    taken = list(queue.take(lambda number: items[number][1]))
    assert sorted(taken) == [number for number, (_, is_eligible) in enumerate(items) if is_eligible]
    left = list(queue)
    assert sorted([*taken, *left]) == list(range(len(items)))
    for flow in {flow for flow, _ in items}:
        own = [number for number in left if items[number][0] == flow]
        assert own == sorted(own)


@given(st.lists(FLOWS, min_size=1, max_size=40))
def test_while_two_clients_wait_neither_is_served_twice_in_a_row(flows: list[FlowKey]) -> None:
    queue: FairQueue[object] = FairQueue()
    for flow in flows:
        queue.push(flow, None)
    order, remaining = [flow.client for flow in drain(queue)], Counter(flow.client for flow in flows)
    for position, client in enumerate(order):
        if position and len(remaining) > 1:
            assert client != order[position - 1]
        remaining[client] -= 1
        remaining += Counter()  # drops clients without items


def test_streams_of_a_client_take_turns_among_themselves() -> None:
    queue: FairQueue[object] = FairQueue()
    for flow in [FlowKey("a", 1)] * 3 + [FlowKey("a", 2), FlowKey("b"), FlowKey("b")]:
        queue.push(flow, None)
    assert drain(queue) == [
        FlowKey("a", 1),
        FlowKey("b"),
        FlowKey("a", 2),
        FlowKey("b"),
        FlowKey("a", 1),
        FlowKey("a", 1),
    ]


async def test_one_image_does_not_wait_behind_a_hundred_of_another_client() -> None:
    semaphore, order = FairSemaphore(1), []

    async def work(client: str) -> None:
        async with semaphore.turn(FlowKey(client)):
            order.append(client)
            await asyncio.sleep(0)

    crowd = [asyncio.create_task(work("crowd")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(work("lone"), *crowd)
    assert order.index("lone") < 5


@pytest.mark.parametrize("weights", [[1], [1, 2, 5]])
@pytest.mark.parametrize("seed", range(20))
async def test_cancelling_at_any_moment_loses_no_turn(seed: int, weights: list[int]) -> None:
    rng, semaphore, active, peak = random.Random(seed), FairSemaphore(2), 0, 0

    async def work() -> None:
        nonlocal active, peak
        async with semaphore.turn(FlowKey(rng.choice("abc"), rng.randrange(2)), rng.choice(weights)):
            active += 1
            peak = max(peak, active)
            try:
                await asyncio.sleep(0)
            finally:
                active -= 1

    tasks = [asyncio.create_task(work()) for _ in range(40)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rng.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert peak <= 2
    async with asyncio.timeout(10), semaphore.turn(FlowKey("a")), semaphore.turn(FlowKey("b")):  # both are free again
        pass


async def test_a_client_without_a_turn_gets_a_reserved_one_and_then_no_second() -> None:
    semaphore, active = FairSemaphore(2, reserved=1), Counter[str]()
    finish = asyncio.Event()

    async def work(client: str) -> None:
        async with semaphore.turn(FlowKey(client)):
            active[client] += 1
            await finish.wait()

    tasks = [asyncio.create_task(work("crowd")) for _ in range(5)]
    await settle()
    assert active == {"crowd": 2}
    tasks += [asyncio.create_task(work(client)) for client in ("lone", "lone", "late")]
    await settle()
    assert active == {"crowd": 2, "lone": 1}
    finish.set()
    await asyncio.gather(*tasks)
    assert active == {"crowd": 5, "lone": 2, "late": 1}


async def test_heavy_turns_count_as_several_and_are_not_delayed_forever_by_light_ones() -> None:
    semaphore, held, order = FairSemaphore(4), 0, list[int]()

    async def work(weight: int) -> None:
        nonlocal held
        async with semaphore.turn(FlowKey(f"client of {weight}"), weight):
            held += weight
            order.append(weight)
            assert held <= 4 or held == weight  # one that is heavier than all turns is processed alone
            await asyncio.sleep(0)
            held -= weight

    light = [asyncio.create_task(work(1)) for _ in range(40)]
    await asyncio.sleep(0)
    await asyncio.gather(work(3), work(9), *light)
    assert max(order.index(3), order.index(9)) < 12


async def test_those_behind_a_heavy_one_do_not_wait_when_it_leaves() -> None:
    semaphore = FairSemaphore(2)
    async with semaphore.turn(FlowKey("a")):
        heavy = asyncio.create_task(semaphore.turn(FlowKey("a"), 2).__aenter__())
        await settle()
        light = asyncio.create_task(semaphore.turn(FlowKey("a")).__aenter__())
        await settle()
        assert not light.done()
        heavy.cancel()
        async with asyncio.timeout(10):
            await light
