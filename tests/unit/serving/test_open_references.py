"""OpenReferences: memory is counted once and released, and no reference in use is closed, in any order of calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest
from fakes.detector import FakeScorer
from fakes.gray import reference, scorer
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import MemoryBudgetError
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_use import OpenReference

REFERENCES = {name: reference(name) for name in "abcd"}
SIZE = REFERENCES["a"].model.bank.nbytes
STEPS = st.tuples(st.sampled_from(["use", "leave", "add", "tune", "keep", "retire", "fail"]), st.sampled_from("abcd"))


class World:
    """Open references with memory for `capacity` equal ones, and their users."""

    def __init__(self, capacity: int, *, may_close: bool) -> None:
        self.capacity = capacity
        self.users: dict[str, list[AsyncExitStack]] = {name: [] for name in REFERENCES}
        self._failing: set[str] = set()
        self._kept: set[str] = set()  # those whose previous revision is in memory
        self.references = OpenReferences(
            self._open, lambda _: SIZE, lambda _: 0, self._kept.remove, max_bytes=capacity * SIZE, may_close=may_close
        )

    async def _open(self, info: ReferenceInfo) -> Scorer:
        await asyncio.sleep(0)
        if info.reference_id in self._failing:
            raise OSError
        return scorer(REFERENCES[info.reference_id])

    async def use(self, name: str) -> None:
        stack = AsyncExitStack()
        with suppress(MemoryBudgetError, OSError):
            open_reference = await stack.enter_async_context(self.references.use(REFERENCES[name].info))
            assert open_reference.info.reference_id == name
            self.users[name].append(stack)

    async def fail(self, name: str) -> None:
        self._failing.add(name)
        await self.use(name)
        self._failing.discard(name)

    async def leave(self, name: str) -> None:
        if self.users[name]:
            await self.users[name].pop().aclose()

    async def add(self, name: str) -> None:
        self._add(name, scorer(REFERENCES[name]))

    async def tune(self, name: str) -> None:
        """Another revision with the same scorer: it takes no memory, so it always fits."""
        entry = self.references._current.get(ReferenceId(name))
        if entry is not None and isinstance(entry.memory, FakeScorer):
            assert self._add(name, entry.memory)

    async def keep(self, name: str) -> None:
        """A change after which a store keeps the previous revision in memory."""
        if ReferenceId(name) in self.references:
            self._kept.add(name)
            self.references.keep(ReferenceId(name), SIZE)

    def _add(self, name: str, scorer: FakeScorer) -> bool:
        try:
            with self.references.room_for(REFERENCES[name].info, scorer):
                self.references.add(OpenReference(REFERENCES[name].info, scorer))
                self._kept.discard(name)
        except MemoryBudgetError:
            return False
        self.references.keep(ReferenceId(name), 0)
        return True

    async def retire(self, name: str) -> None:
        self.references.retire(ReferenceId(name))
        self._kept.discard(name)

    def check(self) -> None:
        entries = (*self.references._current.values(), *self.references._retired)
        in_use = {entry.reference_id for entry in entries if entry.users}
        assert in_use == {name for name, stacks in self.users.items() if stacks}
        scorers = {id(entry.memory) for entry in entries}
        # Revisions that were replaced while they were in use count on top.
        assert len(scorers) <= self.capacity + len(in_use)
        assert sum(self.references.bytes_by_state().values()) == self.references._held_bytes()
        assert set(self.references._previous) == self._kept
        if self._kept:  # they are the first to go
            assert len(scorers) + len(self._kept) <= self.capacity

    async def end(self) -> None:
        for name, stacks in self.users.items():
            for stack in stacks:
                await stack.aclose()
            await self.retire(name)
        assert not self.references._current
        assert not self.references._retired
        assert not self.references._previous
        assert self.references._reserved == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(1, 4), st.booleans())
def test_the_memory_limit_holds_and_all_memory_comes_back(
    steps: list[tuple[str, str]], capacity: int, may_close: bool
) -> None:
    async def run() -> None:
        world = World(capacity, may_close=may_close)
        for step, name in steps:
            await getattr(world, step)(name)
            world.check()
        await world.end()

    asyncio.run(run())


@pytest.mark.parametrize("shared", [{"a": 1, "b": 1}, {"a": 1, "b": 0}, {"a": 0, "b": 1}])
def test_what_references_share_counts_once_and_stays(shared: dict[str, int]) -> None:
    def add(name: str) -> None:
        with references.room_for(REFERENCES[name].info, None):
            references.add(OpenReference(REFERENCES[name].info, scorer(REFERENCES[name])))

    def shared_nbytes_of(info: ReferenceInfo) -> int:
        return SIZE * shared.get(info.reference_id, 0)

    async def run() -> None:
        add("a")
        add("b")
        with pytest.raises(MemoryBudgetError, match="a smaller input"):
            add("c")
        assert not references.has_room_for(REFERENCES["c"].info)
        references.retire(ReferenceId("a"))
        references.retire(ReferenceId("b"))
        add("c")
        add("d")
        assert set(references) == {"c", "d"}
        places = {"open": 2 * SIZE, "retired": 0, "previous": 0, "shared": SIZE, "reserved": 0}
        assert references.bytes_by_state() == places, "all that the limit counts"
        with pytest.raises(MemoryBudgetError):  # the network keeps its buffers
            add("a")

    references = OpenReferences(
        _never_opened, lambda _: SIZE, shared_nbytes_of, lambda _: None, max_bytes=3 * SIZE, may_close=False
    )
    asyncio.run(run())


async def _never_opened(_info: ReferenceInfo) -> Scorer:
    raise AssertionError
