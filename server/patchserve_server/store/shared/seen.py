"""The revisions that this server has read or written: by them it finds its copies without asking the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.shared.records import StoredRevision

_MOST: Final = 16_384  # half a kB each


@dataclass(frozen=True, slots=True)
class SeenRevision:
    """Digests of the content of a revision."""

    bank: str
    manifest: str


class SeenRevisions:
    """The last revisions that were seen, by reference: what two references have in common has two manifests."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._changing = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], SeenRevision] = OrderedDict()  # the oldest first

    def add(self, reference_id: ReferenceId, stored: StoredRevision) -> None:
        """Remembers a revision."""
        key = (reference_id, stored.revision)
        with self._changing:
            self._seen[key] = SeenRevision(stored.bank.digest, stored.manifest.digest)
            self._seen.move_to_end(key)
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)

    def find(self, reference_id: ReferenceId, revision: str) -> SeenRevision | None:
        """The digests of a revision; None: it was not seen, or long ago."""
        return self._seen.get((reference_id, revision))
