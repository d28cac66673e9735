"""The calls of the blocking client that list, show and change references."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TypeVar

from patchserve_client import _calls
from patchserve_client._base import BaseClient
from patchserve_client._types import EncodedReferenceImage, KeptRevision, LoadProgress, ReferenceInfo

_T = TypeVar("_T")


class ReferenceCalls(BaseClient):
    """The part of `Client` for references that are loaded."""

    @abstractmethod
    def _run(self, call: _calls.Call[_T], timeout_s: float | None) -> _T: ...

    def get_reference(self, reference_id: str = "default", *, timeout_s: float | None = None) -> ReferenceInfo:
        """Describe one reference.

        Raises:
            NotFound: there is no such reference.
        """
        return self._run(_calls.get_reference(reference_id), timeout_s)

    def list_references(self, *, timeout_s: float | None = None) -> Iterator[ReferenceInfo]:
        """All references in the order of their ids, fetched page by page."""
        page_token = ""
        while True:
            page, page_token = self._run(_calls.list_references(page_token), timeout_s)
            yield from page
            if not page_token:
                return

    def list_loads(self, reference_id: str = "", *, timeout_s: float | None = None) -> list[LoadProgress]:
        """The progress of the active loads of a reference, or of all references if empty; the oldest first.

        Call it from another thread while `load_reference` runs. A load that has ended is not listed.
        """
        return self._run(_calls.list_loads(reference_id), timeout_s)

    def tune_reference(
        self, reference_id: str, sensitivity: float, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> ReferenceInfo:
        """Set the sensitivity of a reference. Returns when the server uses the new revision.

        Open streams keep the revision that they started with. The call is not retried.

        Args:
            reference_id: the reference.
            sensitivity: both calibrated thresholds are divided by it, 0.1 to 10, unless a request sets its own. Above 1
                finds more; 1 restores the calibrated thresholds.
            expected_revision: fail if the reference is at another revision; empty: accept any.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.

        Raises:
            NotFound: there is no such reference.
            InvalidArgument: the sensitivity is out of its range.
            FailedPrecondition: it is not at `expected_revision`.
            Aborted: another call changed the reference at the same time.
        """
        call = _calls.tune_reference(reference_id, sensitivity, expected_revision)
        return self._run(call, self._load_deadline_s(timeout_s))

    def restore_reference(
        self,
        reference_id: str,
        *,
        revision: str = "",
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Put the revision back that was in use before the last change. Returns when the server uses it again.

        The server keeps one, and now keeps the one that was in use: restoring twice changes nothing. Open streams keep
        the revision that they started with. The call is not retried.

        Args:
            reference_id: the reference.
            revision: fail unless it is this one that is put back, or in use already; empty: the previous revision.
            expected_revision: fail if the reference is at another revision; empty: accept any.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.

        Raises:
            NotFound: there is no such reference.
            FailedPrecondition: no previous revision is kept, it is not `revision`, or the reference is not at
                `expected_revision`.
            Aborted: another call changed the reference at the same time.
        """
        call = _calls.restore_reference(reference_id, revision, expected_revision)
        return self._run(call, self._load_deadline_s(timeout_s))

    def reference_history(self, reference_id: str = "default", *, timeout_s: float | None = None) -> list[KeptRevision]:
        """The revisions that the server keeps: the current one, then the one that `restore_reference` puts back.

        Needs the scope `manage`.

        Raises:
            NotFound: there is no such reference.
        """
        return self._run(_calls.reference_history(reference_id), timeout_s)

    def reference_image(
        self,
        reference_id: str = "default",
        index: int = 0,
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> EncodedReferenceImage:
        """One of the images that a reference was built from, as the backbone saw it. Needs the scope `manage`.

        Args:
            reference_id: the reference.
            index: which image, from 0, in the order of `ReferenceInfo.images`.
            expected_revision: fail if the reference is at another revision; empty: accept any.
            timeout_s: the deadline, in seconds; None: the client's `timeout_s`.

        Raises:
            NotFound: there is no such reference.
            InvalidArgument: it has no image with this index.
            FailedPrecondition: it is not at `expected_revision`.
        """
        return self._run(_calls.reference_image(reference_id, index, expected_revision), timeout_s)

    def delete_reference(
        self, reference_id: str, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> str:
        """Delete a reference and return its last revision. Streams that use it end with NotFound.

        Raises:
            NotFound: there is no such reference.
            FailedPrecondition: it is not at `expected_revision`.
        """
        return self._run(_calls.delete_reference(reference_id, expected_revision), timeout_s)
