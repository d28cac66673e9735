"""Changes of references in a shared store, and what their answers allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import TypeAlias

from fakes.bucket_servers import Server
from fakes.references import make_reference
from patchserve_server.domain.errors import (
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
    StorageUnavailableError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects import ObjectStorage
from patchserve_server.store.shared.pointers import Pointers

IDS = [ReferenceId("belt"), ReferenceId("parcel")]
CONTENTS = {name: [make_reference(name, seed, images=1, patches=2) for seed in range(3)] for name in IDS}

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


def state_of(bucket: ObjectStorage, reference_id: ReferenceId) -> State:
    """What is stored."""
    pointer = Pointers(bucket).read(reference_id).pointer
    if pointer is None:
        return NOTHING
    previous = None if pointer.previous is None else Revision(pointer.previous.revision)
    return Revision(pointer.current.revision), previous
