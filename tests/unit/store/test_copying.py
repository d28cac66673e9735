"""Copies between two stores, while servers use them."""

from __future__ import annotations

from fakes.references import make_reference

from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import Revision
from patchserve_server.store import MemoryReferenceStore
from patchserve_server.store.copying import Outcome, copy_references

FIRST, SECOND, THIRD, FOURTH = (make_reference(seed=seed) for seed in (1, 2, 3, 4))


class UsedStore(MemoryReferenceStore):
    """A server saves a revision in it just before the copy does."""

    saved_before: Reference | None = None

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        if (other := self.saved_before) is not None:
            self.saved_before = None
            super().save(other)
        return super().save(reference, base)


def test_a_copy_does_not_replace_what_a_server_saves_in_the_target_meanwhile() -> None:
    source, target = MemoryReferenceStore(), UsedStore()
    source.save(FIRST)
    source.save(SECOND)
    target.save(THIRD)
    target.saved_before = FOURTH
    (copied,) = copy_references(source, target, [FIRST.reference_id])
    assert copied.outcome is Outcome.FAILED
    assert "at the same time" in copied.problem
    assert target.load(FIRST.reference_id).revision == FOURTH.revision
    (copied,) = copy_references(source, target, [FIRST.reference_id])
    assert copied.outcome is Outcome.COPIED, "the next copy replaces it, as it says"
    assert target.load(FIRST.reference_id).revision == SECOND.revision
