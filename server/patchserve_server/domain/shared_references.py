"""What a store that several servers use offers besides `ports.ReferenceStore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision


class SharedReferences(Protocol):
    """References that other servers change too. Blocking; called from several threads at once."""

    def poll(self) -> Mapping[ReferenceId, Revision | None]:
        """The references that changed since the last call, whoever changed them; the first call returns all.

        It is cheap if nothing changed. A reference may be among them with the revision that it had: then its
        description or its previous revision changed.

        Returns:
            The revision that each of them has now; None: it was deleted. A reference whose record is damaged has the
            revision that it had last.

        Raises:
            StorageUnavailableError: the store cannot be read. The next call returns these changes too.
        """

    def look_up(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description of what is stored now, which no poll may have seen yet; None: there is none.

        Raises:
            ReferenceDamagedError: its records are damaged.
            StorageUnavailableError: it cannot be read.
        """

    def load_copy(self, info: ReferenceInfo) -> Reference | None:
        """The revision that was described so, verified, from what this server has copied; None: it has not all of it.

        The store is not asked, so this revision may no longer be current.

        Raises:
            StorageUnavailableError: the copies cannot be read.
        """

    def synced_age_s(self) -> float:
        """The time since the last poll that succeeded, or since the beginning."""

    def maintain(self) -> None:
        """Does what is due for the whole store, by one server at a time: repairs the index and removes unused banks.

        Most calls do nothing: it is too early, or another server does it.

        Raises:
            StorageUnavailableError: the store cannot be read or written. A later call goes on.
        """
