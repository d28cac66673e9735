"""Two changes of one reference on two servers: one begins and ends before each of the requests of the other.

A third server polls just before that, so that it may know a part of the first change. And a fault at each request.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.bucket_servers import Clock, Fault, KilledError, Server, indexed, lost_answer, memory_bucket, open_server
from fakes.references import content
from fakes.shared_changes import CONTENTS, Change, outcomes, state_of

from patchserve_server.domain.reference_id import ReferenceId

PARCEL = ReferenceId("parcel")
MOST_REQUESTS = 17
KINDS = {
    "first save": (Change("save", PARCEL, 0, None), 0),
    "save": (Change("save", PARCEL, 2, None), 2),
    "append": (Change("save", PARCEL, 2, 1), 2),
    "restore": (Change("restore", PARCEL, 0, 1), 2),
    "delete": (Change("delete", PARCEL, 0, 1), 2),
}
"""Changes, and how many saves there were before."""


def servers_after(saves: int, folder: Path, count: int) -> list[Server]:
    clock = Clock()
    bucket = memory_bucket(clock)
    servers = [open_server(bucket, folder, clock, seed) for seed in range(count)]
    for number in range(saves):
        servers[0].store.save(CONTENTS[PARCEL][number])
    for server in servers:
        server.poll()
    return servers


def check_all(servers: list[Server]) -> None:
    current, _ = state_of(servers[0].bucket, PARCEL)
    for server in servers:
        server.poll()
        assert server.known == ({} if current is None else {PARCEL: current})
    if current is not None:
        (saved,) = [each for each in CONTENTS[PARCEL] if each.revision == current]
        assert content(servers[-1].store.load(PARCEL)) == content(saved)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other_kind", ["save", "append", "restore", "delete"])
def test_two_changes_are_one_after_the_other_whatever_their_requests_do(
    tmp_path: Path, kind: str, other_kind: str
) -> None:
    (change, saves), (other, _) = KINDS[kind], KINDS[other_kind]
    if other_kind == "save" and kind != "first save":
        other = Change("save", PARCEL, 1, None)
    for at in range(MOST_REQUESTS):
        first, second, watcher = servers = servers_after(saves, tmp_path, 3)
        before, answers = state_of(first.bucket, PARCEL), []
        left = at

        def before_call(_method: str, _key: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                watcher.poll()  # noqa: B023 - called in this iteration only
                answers.append((other, other.make(second)))  # noqa: B023

        first.bucket.before_call = before_call
        answers.append((change, change.make(first)))
        first.bucket.before_call = lambda _method, _key: None
        assert state_of(first.bucket, PARCEL) in outcomes(before, answers), (at, answers)
        current, _ = state_of(first.bucket, PARCEL)
        assert indexed(first.bucket).get(PARCEL) == current, (at, answers)
        check_all(servers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [lost_answer, KilledError])
def test_a_change_that_breaks_is_there_or_not_and_the_index_learns_which(
    tmp_path: Path, kind: str, error: type[BaseException]
) -> None:
    change, saves = KINDS[kind]
    for request in range(2 * MOST_REQUESTS):
        broken, other = servers = servers_after(saves, tmp_path, 2)
        before = state_of(broken.bucket, PARCEL)
        broken.bucket.break_at(Fault(request // 2, is_after=bool(request % 2), error=error))
        try:
            answer = change.make(broken)
        except KilledError:
            answer, servers = "unknown", [other]
        broken.bucket.break_at(None)
        after = state_of(other.bucket, PARCEL)
        assert after in outcomes(before, [(change, answer)])
        if len(servers) == 1 and after != before:  # killed: the index learns of it by whoever tries it again
            again = Change(change.kind, PARCEL, change.content, None).make(other)
            assert again == {"save": "done", "restore": "not kept", "delete": "absent"}[change.kind]
            if change.kind == "restore":  # or by whoever sees it
                other.store.look_up(PARCEL)
                for _ in range(2):
                    other.store._surroundings.sleep(6)
                    other.poll()
        for server in servers:
            server.poll()
        check_all(servers)
