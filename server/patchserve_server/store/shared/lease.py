"""Work for the whole store that one server at a time does, and rarely.

A lease saves requests; nothing is wrong if two servers do the same work, as after a clock that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    Version,
)
from patchserve_server.store.records import encode_record
from patchserve_server.store.shared.keys import LEASES
from patchserve_server.store.shared.records import FORMAT_VERSION, MAX_SMALL_BYTES, Lease, decode_shared
from patchserve_server.store.shared.surroundings import Surroundings

LEASE_TIME: Final = timedelta(minutes=10)  # after which a server that holds a lease counts as killed
_CLOCK_DIFFERENCE: Final = timedelta(minutes=10)  # between two servers, at most


@dataclass(frozen=True, slots=True)
class _Found:
    lease: Lease | None  # None: missing or damaged
    version: Version | None  # None: missing


class Leases:
    """The leases of a store.

    Args:
        storage: has them.
        surroundings: the clock.
    """

    def __init__(self, storage: ObjectStorage, surroundings: Surroundings) -> None:
        self._storage = storage
        self._surroundings = surroundings
        self._holder = surroundings.nonce()

    def take(self, name: str, every: timedelta) -> bool:
        """Whether this server is to do the work now: it is due, and no other server does it.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        now, found = self._surroundings.utc_now(), self._find(name)
        done_time = None if found.lease is None else found.lease.done_time
        is_early = done_time is not None and now - every < done_time <= now
        if is_early or (found.lease is not None and self._is_others(found.lease, now)):
            return False
        return self._swap(name, found, done_time, LEASE_TIME)

    def _is_others(self, lease: Lease, now: datetime) -> bool:
        # One that lasts longer is of a server whose clock was wrong: nobody would do the work until then.
        return lease.holder != self._holder and now < lease.until_time <= now + LEASE_TIME + _CLOCK_DIFFERENCE

    def give_back(self, name: str, *, is_done: bool) -> None:
        """Ends the lease. Somebody else who has taken it meanwhile keeps it.

        Raises:
            StorageUnavailableError: the store cannot be read or written; the lease ends by itself.
        """
        found = self._find(name)
        if found.lease is not None and found.lease.holder == self._holder:
            done_time = self._surroundings.utc_now() if is_done else found.lease.done_time
            self._swap(name, found, done_time, timedelta(0))

    def _find(self, name: str) -> _Found:
        try:
            stored = self._storage.get(LEASES + name, max_bytes=MAX_SMALL_BYTES)
        except ObjectMissingError:
            return _Found(None, None)
        except ObjectTooLargeError:
            found = self._storage.find(LEASES + name)
            return _Found(None, None if found is None else found.version)
        assert stored is not None  # noqa: S101 - it is None for a conditional request only
        try:
            return _Found(decode_shared(Lease, stored.data), stored.version)
        except DamageError:
            return _Found(None, stored.version)

    def _swap(self, name: str, found: _Found, done_time: datetime | None, time: timedelta) -> bool:
        lease = Lease(
            format_version=FORMAT_VERSION,
            nonce=self._surroundings.nonce(),
            holder=self._holder,
            until_time=self._surroundings.utc_now() + time,
            done_time=done_time,
        )
        try:
            if found.version is None:
                self._storage.create(LEASES + name, encode_record(lease))
            else:
                self._storage.replace(LEASES + name, encode_record(lease), found.version)
        except (ObjectExistsError, ObjectChangedError):
            return False
        return True
