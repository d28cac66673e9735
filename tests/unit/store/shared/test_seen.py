"""What a server remembers of revisions is bounded."""

from __future__ import annotations

from collections.abc import Callable

from fakes.bucket_servers import Server
from fakes.references import make_reference

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.shared.records import StoredRevision
from patchserve_server.store.shared.seen import SeenRevisions


def test_the_revisions_seen_longest_ago_are_forgotten(started: Callable[[], Server]) -> None:
    server = started()
    stored: dict[ReferenceId, StoredRevision] = {}
    for number, name in enumerate(map(ReferenceId, "abc")):
        server.store.save(make_reference(name, number))
        found = server.store._pointers.read(name).pointer
        assert found is not None
        stored[name] = found.current
    seen = SeenRevisions(most=2)
    for again in "abac":
        seen.add(ReferenceId(again), stored[ReferenceId(again)])
    assert [seen.find(name, each.revision) is not None for name, each in stored.items()] == [True, False, True]
