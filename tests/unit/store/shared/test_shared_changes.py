"""Changes of two servers on one bucket, with a fault at any request, and another change between any two requests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import TypeAlias

from fakes.references import content, make_reference
from fakes.shared_stores import Clock, Fault, KilledError, Server, indexed, lost_answer, memory_bucket, open_server
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from patchserve_server.domain.errors import (
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
    StorageUnavailableError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.shared.pointers import Pointers

IDS = [ReferenceId("belt"), ReferenceId("parcel")]
CONTENTS = {name: [make_reference(name, seed, images=1, patches=2) for seed in range(3)] for name in IDS}
SERVERS = 2

State: TypeAlias = tuple[Revision | None, Revision | None]
"""The current and the previous revision of a reference."""

NOTHING: State = (None, None)


@dataclass(frozen=True)
class Change:
    """A change of a reference. `content` is what is saved or restored."""

    kind: str
    reference_id: ReferenceId
    content: int
    base: int | None

    @property
    def reference(self) -> Reference:
        return CONTENTS[self.reference_id][self.content]

    @property
    def base_revision(self) -> Revision | None:
        return None if self.base is None else CONTENTS[self.reference_id][self.base].revision

    def expected(self, state: State) -> tuple[str, State]:
        """The answer in this state, and the state after it."""
        (current, previous), revision, base = state, self.reference.revision, self.base_revision
        if current is None and self.kind != "save":
            return "absent", state
        if base is not None and base != current:
            return "changed", state
        if self.kind == "delete":
            return "done", NOTHING
        if self.kind == "restore":
            return ("done", (previous, current)) if previous == revision else ("not kept", state)
        return "done", (revision, previous if revision == current else current)

    def make(self, server: Server) -> str:
        """The answer of a server; "unknown" if there was none."""
        store, base = server.store, self.base_revision
        changes: dict[str, Callable[[], object]] = {
            "save": lambda: store.save(self.reference, base),
            "restore": lambda: store.restore(self.reference_id, self.reference.revision, base),
            "delete": lambda: store.delete(self.reference_id, base),
        }
        try:
            changes[self.kind]()
        except ReferenceNotFoundError:
            return "absent"
        except ReferenceChangedError:
            return "changed"
        except RevisionNotKeptError:
            return "not kept"
        except StorageUnavailableError:
            return "unknown"
        return "done"


changes = st.builds(
    Change,
    st.sampled_from(["save", "save", "save", "restore", "delete"]),
    st.sampled_from(IDS),
    st.integers(0, 2),
    st.none() | st.integers(0, 2),
)
faults = st.builds(Fault, st.integers(0, 16), st.booleans(), st.sampled_from([lost_answer, KilledError]))


def outcomes(state: State, answered: Iterable[tuple[Change, str]]) -> set[State]:
    """The states that the changes can leave, in any order, if each gets its answer; without an answer, it may do nothing."""
    found = set()
    for order in permutations(answered):
        possible = {state}
        for change, answer in order:
            after = {(change.expected(each), each) for each in possible}
            possible = {new for (expected, new), _ in after if answer in (expected, "unknown")}
            possible |= {old for _, old in after if answer == "unknown"}
        found |= possible
    return found


class SharedChanges(RuleBasedStateMachine):
    """Two servers, of which each may be killed and started again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.bucket = memory_bucket(self.clock)
        self.states = dict.fromkeys(IDS, NOTHING)
        self.starts = 0
        self.is_index_right = True  # unless a server was killed, or the bucket was away, in the middle of a change

    @initialize()
    def start(self) -> None:
        self.servers = [self.started() for _ in range(SERVERS)]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def started(self) -> Server:
        self.starts += 1
        server = open_server(self.bucket, self.folder / "cache", self.clock, self.starts)
        server.poll()
        return server

    @rule(server=st.integers(0, SERVERS - 1), change=changes)
    def a_change(self, server: int, change: Change) -> None:
        self.check([(change, change.make(self.servers[server]))])

    @rule(server=st.integers(0, SERVERS - 1), change=changes, fault=faults)
    def a_change_that_breaks(self, server: int, change: Change, fault: Fault) -> None:
        self.check([(change, self.broken(server, change, fault))])

    @rule(server=st.integers(0, SERVERS - 1), change=changes, other=changes, at=st.integers(0, 16))
    def a_change_in_the_middle_of_another(self, server: int, change: Change, other: Change, at: int) -> None:
        self.check(self.interleaved(server, at, change, other, change.make))

    @rule(server=st.integers(0, SERVERS - 1), change=changes, other=changes, at=st.integers(0, 16), fault=faults)
    def a_change_in_the_middle_of_another_that_breaks(
        self, server: int, change: Change, other: Change, at: int, fault: Fault
    ) -> None:
        broken = partial(self.broken, server, change, fault)
        self.check(self.interleaved(server, at, change, other, lambda _server: broken()))

    def interleaved(
        self, server: int, at: int, change: Change, other: Change, make: Callable[[Server], str]
    ) -> list[tuple[Change, str]]:
        answers: list[tuple[Change, str]] = []
        left = at

        def before_call(_method: str, _key: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                answers.append((other, other.make(self.servers[1 - server])))

        outer = self.servers[server]
        outer.bucket.before_call = before_call
        answer = make(outer)
        outer.bucket.before_call = lambda _method, _key: None
        return [*answers, (change, answer)]

    def broken(self, server: int, change: Change, fault: Fault) -> str:
        bucket = self.servers[server].bucket
        bucket.break_at(fault)
        try:
            answer = change.make(self.servers[server])
        except KilledError:
            answer = "unknown"
            self.servers[server] = self.started()
        bucket.break_at(None)
        return answer

    def check(self, answered: list[tuple[Change, str]]) -> None:
        self.is_index_right &= all(answer != "unknown" for _, answer in answered)
        for name in IDS:
            possible = outcomes(self.states[name], [each for each in answered if each[0].reference_id == name])
            pointer = Pointers(self.bucket).read(name).pointer
            if pointer is None:
                self.states[name] = NOTHING
            else:
                previous = None if pointer.previous is None else Revision(pointer.previous.revision)
                self.states[name] = Revision(pointer.current.revision), previous
            assert self.states[name] in possible, answered
        for change, answer in answered:
            if answer != "unknown" and self.is_index_right:
                assert indexed(self.bucket).get(change.reference_id) == self.states[change.reference_id][0]

    @invariant()
    def no_reference_is_half_there(self) -> None:
        for server in self.servers:
            for name, (current, _) in self.states.items():
                if current is None:
                    assert server.store.look_up(name) is None
                else:
                    (saved,) = [each for each in CONTENTS[name] if each.revision == current]
                    assert content(server.store.load(name)) == content(saved)

    @rule()
    def all_servers_learn_of_all_changes(self) -> None:
        if not self.is_index_right:
            for server in self.servers:
                server.poll()  # mends what this server has begun
            self.clock.sleep(3600)
            self.servers[0].store.maintain()  # mends what a killed server has begun
        current = {name: state[0] for name, state in self.states.items() if state[0] is not None}
        assert indexed(self.bucket) == current
        for server in self.servers:
            server.poll()
            assert server.known == current
            assert server.store.list_ids() == sorted(current)
        self.is_index_right = True


TestSharedChanges = SharedChanges.TestCase
TestSharedChanges.settings = settings(
    max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
