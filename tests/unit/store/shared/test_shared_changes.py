"""Changes of two servers on one bucket, with a fault at any request, and another change between any two requests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fakes.bucket_servers import Clock, Fault, KilledError, Server, indexed, lost_answer, memory_bucket, open_server
from fakes.references import content
from fakes.shared_changes import CONTENTS, IDS, NOTHING, Change, outcomes, state_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from patchserve_server.domain.reference_id import ReferenceId

SERVERS = 3


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
requests = st.integers(0, 15) | st.integers(0, 7).map(lambda number: number + 5)  # of a change: most after content
which = st.integers(0, SERVERS - 1)
faults = st.builds(Fault, requests, st.booleans(), st.sampled_from([lost_answer, lost_answer, KilledError]))


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
        self.was_killed = False  # a server, since all have learned of all changes

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

    @rule(server=which, change=changes, fault=faults, learns=st.booleans())
    def a_change_that_breaks(self, server: int, change: Change, fault: Fault, learns: bool) -> None:
        self.check([(change, self.broken(server, change, fault))])
        if learns:
            self.all_servers_learn_of_all_changes()

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
            self.states[name] = state_of(self.bucket, name)
            assert self.states[name] in possible, answers
            if answers:
                self.check_content(name)
            self.check_index(name, {(change.kind, answer) for change, answer in answers})

    def check_content(self, name: ReferenceId) -> None:
        """No reference is half there."""
        store = self.servers[self.starts % SERVERS].store
        if (current := self.states[name][0]) is None:
            assert store.look_up(name) is None
        else:
            (saved,) = [each for each in CONTENTS[name] if each.revision == current]
            assert content(store.load(name)) == content(saved)

    def check_index(self, name: ReferenceId, answers: set[tuple[str, str]]) -> None:
        """Of changes that found nothing, a delete tells the index so: it may be the second attempt of one."""
        said = {answer for _, answer in answers}
        if "unknown" in said:
            self.unknown.add(name)
        elif "done" in said or (("delete", "absent") in answers and self.states[name] == NOTHING):
            self.unknown.discard(name)
        if name not in self.unknown:
            assert indexed(self.bucket).get(name) == self.states[name][0]

    @rule()
    def all_servers_learn_of_all_changes(self) -> None:
        for server in self.servers:
            server.poll()  # tells the index what this server has begun
        if self.was_killed:  # and nobody but the repair knows of it
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
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
