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
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

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
SERVERS = 3

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


@dataclass(frozen=True)
class Middle:
    """Another server's change before one of the requests of a change. A third server may poll just before that."""

    change: Change
    at: int
    polls: bool


changes = st.builds(
    Change,
    st.sampled_from(["save", "save", "save", "restore", "delete"]),
    st.sampled_from(IDS),
    st.integers(0, 2),
    st.none() | st.integers(0, 2),
)
requests = st.integers(0, 17)  # of a change, which makes 17 if nothing comes in between
which = st.integers(0, SERVERS - 1)
faults = st.builds(Fault, requests, st.booleans(), st.sampled_from([lost_answer, lost_answer, KilledError]))


def outcomes(state: State, answered: Iterable[tuple[Change, str]]) -> set[State]:
    """The states that changes can leave, in any order, if each gets its answer; one without may have done nothing."""
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
        self.unknown: set[ReferenceId] = set()  # references of changes without an answer: the index may lag behind
        self.was_killed = False  # a server, so that nobody but the repair knows of its change

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

    @rule(server=which, change=changes)
    def a_change(self, server: int, change: Change) -> None:
        self.check([(change, change.make(self.servers[server]))])

    @rule(server=which, change=changes, fault=faults)
    def a_change_that_breaks(self, server: int, change: Change, fault: Fault) -> None:
        self.check([(change, self.broken(server, change, fault))])

    @rule(server=which, change=changes, other=changes, at=requests, polls=st.booleans())
    def a_change_in_the_middle_of_another(
        self, server: int, change: Change, other: Change, at: int, polls: bool
    ) -> None:
        self.check(self.interleaved(change, change.make, server, Middle(other, at, polls)))

    @rule(server=which, change=changes, other=changes, at=requests, fault=faults)
    def a_change_in_the_middle_of_another_that_breaks(
        self, server: int, change: Change, other: Change, at: int, fault: Fault
    ) -> None:
        broken = partial(self.broken, server, change, fault)
        self.check(self.interleaved(change, lambda _server: broken(), server, Middle(other, at, polls=False)))

    @rule(server=which)
    def a_poll(self, server: int) -> None:
        self.servers[server].poll()

    def interleaved(
        self, change: Change, make: Callable[[Server], str], server: int, middle: Middle
    ) -> list[tuple[Change, str]]:
        """Makes two changes, and returns the answers."""
        answers: list[tuple[Change, str]] = []
        left = middle.at

        def before_call(_method: str, _key: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                if middle.polls:
                    self.servers[(server + 2) % SERVERS].poll()
                other = middle.change.make(self.servers[(server + 1) % SERVERS])
                answers.append((middle.change, other))

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
            self.was_killed = True
        bucket.break_at(None)
        return answer

    def check(self, answered: list[tuple[Change, str]]) -> None:
        for name in IDS:
            answers = [each for each in answered if each[0].reference_id == name]
            possible = outcomes(self.states[name], answers)
            self.states[name] = self.stored(name)
            assert self.states[name] in possible, answers
            if answers:
                self.check_content(name)
            self.check_index(name, {answer for _, answer in answers})

    def check_content(self, name: ReferenceId) -> None:
        """No reference is half there."""
        store = self.servers[self.starts % SERVERS].store
        if (current := self.states[name][0]) is None:
            assert store.look_up(name) is None
        else:
            (saved,) = [each for each in CONTENTS[name] if each.revision == current]
            assert content(store.load(name)) == content(saved)

    def check_index(self, name: ReferenceId, answers: set[str]) -> None:
        if "unknown" in answers:
            self.unknown.add(name)
        elif "done" in answers or ("absent" in answers and self.states[name] == NOTHING):
            self.unknown.discard(name)
        if name not in self.unknown:
            assert indexed(self.bucket).get(name) == self.states[name][0]

    def stored(self, name: ReferenceId) -> State:
        pointer = Pointers(self.bucket).read(name).pointer
        if pointer is None:
            return NOTHING
        previous = None if pointer.previous is None else Revision(pointer.previous.revision)
        return Revision(pointer.current.revision), previous

    @rule()
    def all_servers_learn_of_all_changes(self) -> None:
        for server in self.servers:
            server.poll()  # tells the index what this server has begun, if it was not killed
        if self.was_killed:
            self.clock.sleep(3600)
            self.servers[0].store.maintain()
        self.unknown, self.was_killed = set(), False
        current = {name: state[0] for name, state in self.states.items() if state[0] is not None}
        assert indexed(self.bucket) == current
        for server in self.servers:
            server.poll()
            assert server.known == current
            assert server.store.list_ids() == sorted(current)


TestSharedChanges = SharedChanges.TestCase
TestSharedChanges.settings = settings(
    max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
