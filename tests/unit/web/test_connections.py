"""Connections are limited, in all and for each client; one without a request makes room for another."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.web.connections import ConnectionPlace, Connections


class Scene:
    def __init__(self, limit: int, share: float) -> None:
        self.connections = Connections(limit, share)
        self.ended: list[str] = []

    def open(self, name: str, address: str = "a") -> ConnectionPlace:
        return self.connections.open(address, lambda: self.ended.append(name))


async def test_the_longest_idle_one_makes_room() -> None:
    scene = Scene(3, 1.0)
    first, second, _ = (scene.open(str(number)) for number in range(3))
    first.set_idle(is_idle=False)
    scene.open("new")
    assert scene.ended == ["1"]
    assert scene.connections.count == 3
    first.set_idle(is_idle=True)
    second.close()
    scene.open("new", "b")
    scene.open("new", "b")
    assert scene.ended == ["1", "2", "new"], "the first has had a request since"


async def test_those_with_a_request_stay() -> None:
    scene = Scene(2, 1.0)
    for number in range(2):
        scene.open(str(number)).set_idle(is_idle=False)
    with pytest.raises(QueueFullError):
        scene.open("new")
    assert scene.ended == []


async def test_who_has_its_share_loses_one_of_its_own() -> None:
    scene = Scene(4, 0.5)
    scene.open("others", "b")
    scene.open("own")
    scene.open("second").set_idle(is_idle=False)
    with suppress(QueueFullError):
        scene.open("new")
    assert scene.ended == ["own"]


async def test_who_has_most_loses_one() -> None:
    scene = Scene(4, 1.0)
    scene.open("of a")
    for number in range(3):
        scene.open(f"of b {number}", "b")
    scene.open("new", "c")
    assert scene.ended == ["of b 0"]


async def test_all_are_closed_when_each_one_is() -> None:
    scene = Scene(4, 1.0)
    await asyncio.wait_for(scene.connections.all_closed(), 10)
    places = [scene.open(str(number)) for number in range(2)]
    waiting = asyncio.create_task(scene.connections.all_closed())
    places[0].close()
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.connections.end_all()
    await waiting
    assert scene.ended == ["1"]
    places[0].set_idle(is_idle=True)  # it is too late: it holds nothing
    assert scene.connections.count == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["open", "busy", "idle", "close"]), st.integers(0, 9)))
)
def test_whatever_happens_places_are_counted_once(steps: list[tuple[str, str, int]]) -> None:
    connections, places = Connections(4, 0.5), list[ConnectionPlace]()
    ended: set[int] = set()

    async def run() -> None:
        for address, what, which in steps:
            if what == "open":
                number = len(places)
                with suppress(QueueFullError):
                    places.append(connections.open(address, partial(ended.add, number)))
            elif places:
                place = places[which % len(places)]
                if what == "close":
                    place.close()
                    ended.add(which % len(places))
                else:
                    place.set_idle(is_idle=what == "idle")
            assert connections.count == len(places) - len(ended) <= 4
        connections.end_all()
        assert connections.count == 0

    asyncio.run(run())
