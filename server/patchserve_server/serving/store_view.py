"""What is current in a store, as far as this server knows: the port, and a store that no other server changes."""

from __future__ import annotations

from typing import Protocol

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.serving.known_references import KnownReferences


class StoreView(Protocol):
    """Lives on the event loop, as all of `serving`."""

    @property
    def usable_count(self) -> int: ...

    @property
    def damaged_count(self) -> int: ...

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        """The description of the current revision.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is stored but cannot be read.
            RevisionMismatchError: it is not the expected one.
            QueueFullError, StorageUnavailableError: a shared store must be asked, and cannot.
        """

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The same, of a reference that was described before; None: there is none, or it was not."""

    def has(self, reference_id: ReferenceId) -> bool:
        """Whether there is such a reference, described or not."""

    def is_current(self, info: ReferenceInfo) -> bool:
        """Whether nothing else is known to be current now."""

    def base_of(self, info: ReferenceInfo | None) -> Revision | None:
        """The revision that the store must still have when one is put in its place; None: any."""

    def damage_of(self, reference_id: ReferenceId) -> PatchserveError | None:
        """Why a reference cannot be read; None: it can, as far as is known."""

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        """Up to `size` references with greater ids, in order, and whether more may follow.

        Raises:
            StorageUnavailableError: those of a shared store cannot be described.
        """

    def set(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> bool:
        """What is current after a change that this server made; None: deleted. Returns whether it was not known yet."""

    async def learn_unusable(self, reference_id: ReferenceId, error: PatchserveError) -> None:
        """A reference cannot be read."""

    async def check(self, reference_id: ReferenceId) -> None:
        """What is known does not agree with the store: finds out what is current. Raises nothing."""

    def doubt(self, reference_id: ReferenceId) -> None:
        """A change may have been made or not: what is current will be found out when the store is reached again."""

    def status(self) -> StoreStatus: ...

    def check_reachable(self) -> None:
        """Before a change.

        Raises:
            StorageUnavailableError: the store cannot be reached now.
        """


class OwnStoreView:
    """Implements `StoreView`: everything is described, and changes only through this server."""

    def __init__(self, known: KnownReferences, status: StoreStatus) -> None:
        self._known = known
        self._status = status

    @property
    def usable_count(self) -> int:
        return len(self._known)

    @property
    def damaged_count(self) -> int:
        return self._known.damaged_count

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        return self._known.info(reference_id, expected_revision)

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        return self._known.find(reference_id)

    def damage_of(self, reference_id: ReferenceId) -> PatchserveError | None:
        return self._known.damage_of(reference_id)

    def has(self, reference_id: ReferenceId) -> bool:
        return self._known.find(reference_id) is not None

    def is_current(self, info: ReferenceInfo) -> bool:
        return self._known.find(info.reference_id) == info

    def base_of(self, _info: ReferenceInfo | None) -> None:
        return None  # what is known here is what is current

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        return self._known.page(after_id, size)

    def set(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> bool:
        self._known.set(reference_id, info)
        return True

    async def learn_unusable(self, reference_id: ReferenceId, error: PatchserveError) -> None:
        self._known.set(reference_id, error)

    async def check(self, _reference_id: ReferenceId) -> None:
        pass

    def doubt(self, _reference_id: ReferenceId) -> None:
        pass

    def status(self) -> StoreStatus:
        return self._status

    def check_reachable(self) -> None:
        pass
