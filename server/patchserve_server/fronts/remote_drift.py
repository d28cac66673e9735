"""The drift of references, which the engine of another process watches for all fronts."""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.drift import UNKNOWN, Drift
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.link import Link
from patchserve_server.serving.values import body_of, from_json_bytes

MAX_REFERENCES: Final = 2000  # more than the engine remembers


def drift_message(reference_id: ReferenceId, revision: Revision, drift: Drift) -> tuple[Head, Body]:
    """What an engine tells its fronts of a comparison."""
    return {"tell": "drift", "id": reference_id, "revision": revision}, body_of(drift)


class RemoteDrift:
    """Implements `engine_ports.Drifts` in a front: passes scores on, and copies what the engine makes of them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[ReferenceId, tuple[Revision, Drift]] = {}

    def add(self, reference_id: ReferenceId, revision: Revision, raw_score: float) -> None:
        self._link.tell({"tell": "scored", "id": reference_id, "revision": revision, "score": raw_score})

    def learn(self, head: Head, body: bytes) -> None:
        """Takes what the engine tells."""
        reference_id, revision = ReferenceId(head["id"]), Revision(head["revision"])
        drift = from_json_bytes(Drift, body)
        self._known.pop(reference_id, None)
        if len(self._known) >= MAX_REFERENCES:
            del self._known[next(iter(self._known))]
        self._known[reference_id] = revision, drift  # the one told last comes last

    def drift_of(self, reference: ReferenceInfo) -> Drift:
        revision, drift = self._known.get(reference.reference_id, ("", UNKNOWN))
        return drift if revision == reference.revision else UNKNOWN
