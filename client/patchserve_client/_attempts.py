"""The decisions about one call, without I/O: with which revision it is made, and whether it is made once more.

gRPC itself makes a unary call once more that is UNAVAILABLE (_service_config.py).
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

from google.protobuf.message import Message

from patchserve.v1 import reference_pb2
from patchserve_client._calls import Call
from patchserve_client._errors import Aborted, PatchserveError, Unavailable
from patchserve_client._loads import StreamedLoad
from patchserve_client._own_changes import OwnChanges
from patchserve_client._reference_header import reference_of
from patchserve_client._service_config import read

# Calls that go to the revision that this client has made. For LoadReference it is part of an APPEND, which is streamed.
_PINNED: Final = frozenset({"DeleteReference", "GetReferenceImage", "Infer", "RestoreReference", "TuneReference"})
_CHANGES: Final = frozenset({"LoadReference", "RestoreReference", "TuneReference"})
_MISMATCH: Final = "REVISION_MISMATCH"

_POLICY: Final = read()["methodConfig"][0]["retryPolicy"]
_MOST_ATTEMPTS: Final = int(_POLICY["maxAttempts"])
_FIRST_PAUSE_S: Final = float(_POLICY["initialBackoff"].rstrip("s"))
_LONGEST_PAUSE_S: Final = float(_POLICY["maxBackoff"].rstrip("s"))
_PAUSE_GROWTH: Final = float(_POLICY["backoffMultiplier"])


class _Attempt:
    """What both kinds of calls share: the time, and the revision of this client's own change."""

    def __init__(self, own: OwnChanges, reference_id: str, timeout_s: float) -> None:
        self._own = own
        self.reference_id = reference_id
        self._ends_at_s = time.monotonic() + timeout_s
        self._pinned_revision = ""

    @property
    def remaining_s(self) -> float:
        """The time for the next attempt: all of them share the deadline of the call."""
        return max(0.0, self._ends_at_s - time.monotonic())

    def _forgets(self, error: PatchserveError) -> bool:
        """Whether the call failed only because of the revision that this client has added to it."""
        if not self._pinned_revision or error.reason != _MISMATCH:
            return False
        self._own.forget(self.reference_id)
        self._pinned_revision = ""
        return True


class UnaryAttempt(_Attempt):
    """A unary call, until it has succeeded or failed for good."""

    def __init__(self, call: Call[Any], own: OwnChanges, timeout_s: float) -> None:
        super().__init__(own, reference_of(call.request), timeout_s)
        self._call = call
        self._may_be_aborted = call.method == "LoadReference" and not call.request.expected_revision  # type: ignore[attr-defined]
        if call.method in _PINNED and not call.request.expected_revision:  # type: ignore[attr-defined]
            self._pinned_revision = own.revision_of(self.reference_id)

    @property
    def request(self) -> Message:
        """What to send."""
        if not self._pinned_revision:
            return self._call.request
        pinned = type(self._call.request)()
        pinned.CopyFrom(self._call.request)
        pinned.expected_revision = self._pinned_revision  # type: ignore[attr-defined]
        return pinned

    def pause_s(self, error: PatchserveError) -> float:
        """How long to wait before the next attempt.

        Raises:
            PatchserveError: `error`, if there is none.
        """
        if self._forgets(error):
            return 0.0
        if isinstance(error, Aborted) and self._may_be_aborted:
            self._may_be_aborted = False
            return 0.0
        raise error

    def learn(self, response: Any) -> None:  # noqa: ANN401 - each call has its own response
        """Keep in mind what the call has changed."""
        if self._call.method in _CHANGES:
            self._own.note(response.reference.reference_id, response.reference.revision)
        elif self._call.method == "DeleteReference":
            self._own.forget(self.reference_id)


class LoadAttempt(_Attempt):
    """A streamed load, until it has succeeded or failed for good.

    A REPLACE does the same a second time, so it is made once more after UNAVAILABLE, as gRPC does it for other calls;
    an APPEND only if it names its base. One that was ABORTED, because somebody else changed the reference at the same
    time, has done nothing. It is made once more, on what the reference is now, unless it names its base. All this needs
    images that can be sent again.
    """

    def __init__(self, load: StreamedLoad, own: OwnChanges, timeout_s: float) -> None:
        super().__init__(own, reference_of(load.request), timeout_s)
        self._load = load
        is_append = load.request.mode == reference_pb2.LOAD_MODE_APPEND
        names_base = bool(load.request.expected_revision)
        self._may_be_aborted = load.is_repeatable and not names_base
        self._attempts_left = _MOST_ATTEMPTS - 1 if load.is_repeatable and (names_base or not is_append) else 0
        self._next_pause_s = _FIRST_PAUSE_S
        self._again = False
        if is_append and load.is_repeatable and not names_base:
            self._pinned_revision = own.revision_of(self.reference_id)

    def messages(self) -> Any:  # noqa: ANN401 - an iterator of messages
        """What to send."""
        again, self._again = self._again, True
        return self._load.messages(self._pinned_revision or self._load.request.expected_revision, again=again)

    def pause_s(self, error: PatchserveError) -> float:
        """As that of `UnaryAttempt`."""
        if self._forgets(error):
            return 0.0
        if isinstance(error, Aborted) and self._may_be_aborted:
            self._may_be_aborted = False
            self._pinned_revision = ""
            self._own.forget(self.reference_id)
            return 0.0
        if not isinstance(error, Unavailable) or not self._attempts_left:
            raise error
        self._attempts_left -= 1
        pause_s = error.retry_after_s or self._next_pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
        self._next_pause_s = min(_PAUSE_GROWTH * self._next_pause_s, _LONGEST_PAUSE_S)
        if pause_s >= self.remaining_s:
            raise error
        return pause_s

    def learn(self, response: Any) -> None:  # noqa: ANN401 - as that of `UnaryAttempt`
        """Keep in mind what the load has changed."""
        self._own.note(response.reference.reference_id, response.reference.revision)
