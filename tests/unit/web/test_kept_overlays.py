"""Overlays that are kept: their number, bytes and age are limited, and no client loses its own to another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from fakes.peers import Switchboard
from fakes.waiting import until
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.http_errors import OutputNotFoundError
from patchserve_server.serving.admission import NOTHING, Capacity
from patchserve_server.web.kept_overlays import KeptOverlays

LIMIT = Capacity(6, 100)
ADDED = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), max_size=40)  # client, bytes


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def is_kept(overlays: KeptOverlays, name: str) -> bool:
    try:
        overlays.get(name)
    except OutputNotFoundError:
        return False
    return True


@given(added=ADDED)
def test_what_is_kept_is_within_the_limits_and_is_the_newest_of_each_client(added: Sequence[tuple[str, int]]) -> None:
    async def test() -> None:
        overlays = KeptOverlays(LIMIT)
        names: dict[str, list[tuple[str, int]]] = {}
        for client, nbytes in added:
            names.setdefault(client, []).append((overlays.add(client, bytes(nbytes)), nbytes))
            kept = {name: size for of_client in names.values() for name, size in of_client if is_kept(overlays, name)}
            assert overlays.held == Capacity(len(kept), sum(kept.values()))
            assert overlays.held.fits(LIMIT)
            for of_client in names.values():
                flags = [is_kept(overlays, name) for name, _ in of_client]
                assert flags == sorted(flags), "the oldest go first"

    in_a_loop(test)


@given(added=ADDED)
def test_a_client_within_its_part_loses_nothing_to_greedy_ones(added: Sequence[tuple[str, int]]) -> None:
    async def test() -> None:
        overlays = KeptOverlays(LIMIT)
        name = overlays.add("modest", bytes(25))  # of the count a sixth, of the bytes a quarter: less than half of both
        for _, nbytes in added:
            overlays.add("greedy", bytes(nbytes))
            assert is_kept(overlays, name)

    in_a_loop(test)


@given(added=st.lists(st.integers(0, 100), min_size=1))
def test_one_client_alone_has_all_of_the_room(added: Sequence[int]) -> None:
    async def test() -> None:
        overlays = KeptOverlays(LIMIT)
        names = [overlays.add("a", bytes(nbytes)) for nbytes in added]
        expected, left = [], LIMIT
        for name, nbytes in reversed(list(zip(names, added, strict=True))):
            left -= Capacity(1, nbytes)
            if min(left.count, left.bytes) < 0:
                break
            expected.append(name)
        assert [name for name in reversed(names) if is_kept(overlays, name)] == expected

    in_a_loop(test)


async def test_an_overlay_is_read_as_it_was_added_under_a_name_that_nobody_guesses() -> None:
    overlays = KeptOverlays(LIMIT)
    names = {overlays.add("a", b"PNG") for _ in range(6)}
    assert len(names) == 6
    assert {overlays.get(name) for name in names} == {b"PNG"}
    assert all(name.startswith("result_") and name.endswith(".png") and len(name) == 43 for name in names)


async def test_an_old_overlay_is_gone_and_its_memory_is_free_without_another_call() -> None:
    overlays = KeptOverlays(LIMIT, max_age_s=0.01)
    name = overlays.add("a", b"PNG")
    await until(lambda: overlays.held == NOTHING)
    with pytest.raises(OutputNotFoundError, match="no longer"):
        overlays.get(name)
    overlays.add("a", b"PNG")  # the clearing goes on
    await until(lambda: overlays.held == NOTHING)


async def test_an_overlay_that_is_too_old_is_not_read_though_it_is_still_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overlays = KeptOverlays(LIMIT, max_age_s=600)
    name = overlays.add("a", b"PNG")
    loop = asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s + 601)
    with pytest.raises(OutputNotFoundError):
        overlays.get(name)
    monkeypatch.undo()


async def test_an_overlay_is_found_on_whatever_front_it_is_kept() -> None:
    switchboard = Switchboard()
    one, other = (KeptOverlays(LIMIT, peers=switchboard.front()) for _ in range(2))
    name = one.add("a", b"overlay")
    assert await other.find(name) == await one.find(name) == b"overlay"
    with pytest.raises(OutputNotFoundError):
        await other.find("result_0.png")
