"""What this client has changed a moment ago, so that it finds it on every server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# Several servers with one store hear of each other's changes within about 3 s; one that is asked for a revision that it
# does not know looks it up at once.
REMEMBERED_S: Final = 10.0


class OwnChanges:
    """The revision of each reference that this client has changed in the last seconds. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._revisions: dict[str, tuple[str, float]] = {}  # by reference; with the time of the change, oldest first

    def note(self, reference_id: str, revision: str) -> None:
        """The reference has this revision since just now, because of a call of this client."""
        with self._lock:
            self._forget_old()
            self._revisions.pop(reference_id, None)
            self._revisions[reference_id] = (revision, self._clock())

    def revision_of(self, reference_id: str) -> str:
        """The revision to ask for; empty if this client has changed nothing."""
        if not self._revisions:  # nearly always; without the lock, as every call comes here
            return ""
        with self._lock:
            self._forget_old()
            return self._revisions.get(reference_id, ("", 0.0))[0]

    def forget(self, reference_id: str) -> None:
        """Somebody else has changed or deleted the reference."""
        with self._lock:
            self._revisions.pop(reference_id, None)

    def _forget_old(self) -> None:
        before_s = self._clock() - REMEMBERED_S
        for reference_id, (_, changed_at_s) in list(self._revisions.items()):
            if changed_at_s > before_s:
                return
            del self._revisions[reference_id]
