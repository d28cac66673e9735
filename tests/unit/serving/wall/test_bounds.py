"""Whatever happens in whatever order, the wall stays within its limits, and nothing is kept when nobody watches."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from fakes.events import failed, inspected
from fakes.waiting import until
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.wall import Wall, WallLimits
from patchserve_server.serving.wall.watcher import MAX_FAILURES, MAX_TILES

LIMITS = WallLimits(
    watchers=3, anomalous_images=5, anomalous_bytes=2**21, intact_images=2, intact_bytes=2**20, keeps_s=0
)
REFERENCES = st.sampled_from([ReferenceId(name) for name in "abc"])
ACTIONS = st.one_of(
    st.tuples(st.just("inspect"), REFERENCES, st.booleans(), st.integers(0, 2**19)),
    st.tuples(st.just("watch"), st.none() | REFERENCES),
    st.tuples(st.just("leave")),
    st.tuples(st.just("fail"), REFERENCES),
    st.tuples(st.just("delete"), REFERENCES),
    st.tuples(st.just("pause")),
)


@settings(max_examples=60)
@given(st.lists(ACTIONS, max_size=120))
def test_the_wall_stays_within_its_limits(actions: list[tuple[object, ...]]) -> None:
    asyncio.run(play(actions))


async def play(actions: list[tuple[object, ...]]) -> None:
    with ThreadPoolExecutor(1) as pool:
        wall, stacks = Wall(pool, LIMITS), list[ExitStack]()
        for action in actions:
            match action:
                case ("inspect", ReferenceId() as reference_id, bool(anomalous), int(nbytes)):
                    wall.inspected(inspected(reference_id, anomalous=anomalous, image=SentImage(bytes(nbytes))))
                case ("watch", reference_id):
                    watch(wall, reference_id, stacks)
                case ("leave",) if stacks:
                    stacks.pop(0).close()
                case ("fail", ReferenceId() as reference_id):
                    wall.failed(failed(reference_id))
                case ("delete", ReferenceId() as reference_id):
                    wall.reference_changed(reference_id, None)
                case ("pause",):
                    await asyncio.sleep(0)
            check(wall, is_watched=bool(stacks))
        while stacks:
            stacks.pop().close()
        await until(lambda: not wall.snapshot(None).tiles)


def watch(wall: Wall, reference_id: object, stacks: list[ExitStack]) -> None:
    stack = ExitStack()
    try:
        stack.enter_context(wall.watch(ReferenceId(reference_id) if isinstance(reference_id, str) else None))
    except QueueFullError:
        assert len(stacks) == LIMITS.watchers
    else:
        stacks.append(stack)


def check(wall: Wall, *, is_watched: bool) -> None:
    intact, anomalous = wall._kept[False], wall._kept[True]
    assert len(anomalous) <= LIMITS.anomalous_images
    assert anomalous.nbytes <= LIMITS.anomalous_bytes
    assert len(intact) <= LIMITS.intact_images
    assert intact.nbytes <= LIMITS.intact_bytes
    assert bool(wall._watchers) == is_watched
    for watcher in wall._watchers:
        assert all(len(tiles) <= MAX_TILES for tiles in watcher._tiles.values())
        assert len(watcher._failures) <= MAX_FAILURES
