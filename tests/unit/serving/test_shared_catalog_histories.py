"""Any sequence of changes, polls and calls on several servers: each answer is as new as what was known before."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fakes.catalogs import CatalogFactory, publish, view_of
from fakes.gray import reference
from fakes.shared_store import FakeSharedStore, SharedMemory
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import ReferenceChangedError, ReferenceNotFoundError, RevisionMismatchError
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, Revision
from patchserve_server.serving.catalog import Catalog

DEFAULT = DEFAULT_REFERENCE_ID
SERVERS, LEVELS = 2, 5
Action = tuple[str, int, int]

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["load", "load", "change", "change", "delete", "poll", "use", "use", "use current", "describe"]
        ),
        st.integers(0, SERVERS - 1),
        st.integers(0, LEVELS - 1),
    ),
    min_size=10,
    max_size=40,
)


class History:
    """What was current, in order, and how much of it each server must know."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._memory, factory = SharedMemory(), CatalogFactory(pool, pool)
        self._catalogs: list[Catalog] = [factory.replica(FakeSharedStore(self._memory)) for _ in range(SERVERS)]
        self._states: list[Revision | None] = [None]
        self._known = [0] * SERVERS  # the index of the oldest state that an answer may be of

    async def play(self, actions: list[Action]) -> None:
        for action, server, level in actions:
            await self._do(action, server, level)
        for server in range(SERVERS):
            await view_of(self._catalogs[server]).poll()
            self._known[server] = len(self._states) - 1
            await self._do("use", server, 0)

    async def _do(self, action: str, server: int, level: int) -> None:
        catalog = self._catalogs[server]
        match action:
            case "load":
                self._changed(server, (await publish(catalog, reference(level=level))).revision)
            case "change":
                await self._change(server, level)
            case "delete":
                await self._delete(server)
            case "poll":
                await view_of(catalog).poll()
                self._known[server] = len(self._states) - 1
            case "use":
                self._answered(server, await self._use(catalog))
            case "use current" if (current := self._states[-1]) is not None:
                assert await self._use(catalog, current) == current
                self._known[server] = len(self._states) - 1
            case "describe":
                info = await catalog.current(DEFAULT)
                self._answered(server, None if info is None else info.revision)

    async def _change(self, server: int, level: int) -> None:
        """As an append: what this server knows must still be current."""
        catalog = self._catalogs[server]
        base = await catalog.current(DEFAULT)
        self._answered(server, None if base is None else base.revision)
        if base is None:
            return
        try:
            changed = await publish(catalog, reference(level=level), base)
        except ReferenceChangedError:
            assert base.revision != self._states[-1]
            assert await self._use(catalog) == self._states[-1], "the loser knows the new base"
            self._known[server] = len(self._states) - 1
        else:
            assert base.revision == self._states[-1]
            self._changed(server, changed.revision)

    async def _delete(self, server: int) -> None:
        try:
            deleted = await self._catalogs[server].delete(DEFAULT)
        except ReferenceNotFoundError:
            assert self._states[-1] is None
            self._known[server] = len(self._states) - 1
        else:
            assert deleted == self._states[-1]
            self._changed(server, None)

    async def _use(self, catalog: Catalog, expected: Revision | None = None) -> Revision | None:
        try:
            async with catalog.use(DEFAULT, expected) as opened:
                levels = opened.scorer.model.bank.inputs[:, 0, 0, 0]
                assert opened.info.revision == reference(level=int(levels[0])).revision, (
                    "the bank is that of the revision"
                )
                return opened.info.revision
        except (ReferenceNotFoundError, RevisionMismatchError):
            return None

    def _changed(self, server: int, revision: Revision | None) -> None:
        self._states.append(revision)
        self._known[server] = len(self._states) - 1

    def _answered(self, server: int, revision: Revision | None) -> None:
        since = self._known[server]
        assert revision in self._states[since:]
        self._known[server] = since + self._states[since:].index(revision)


@settings(max_examples=80, deadline=None)
@given(ACTIONS)
def test_no_server_goes_back_and_each_ends_with_what_is_current(actions: list[Action]) -> None:
    with ThreadPoolExecutor(2) as pool:

        async def play() -> None:
            await History(pool).play(actions)

        asyncio.run(play())
