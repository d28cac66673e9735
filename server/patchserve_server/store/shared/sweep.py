"""Removes banks and manifests that no reference uses, after a grace. They stay in the trash for another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from patchserve_server.domain.errors import InvalidInputError, StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects.storage import ListedObject, ObjectStorage
from patchserve_server.store.records import REVISION_PATTERN
from patchserve_server.store.shared.contents import SWEEP_GRACE
from patchserve_server.store.shared.keys import BANKS, MANIFESTS, POINTERS, TRASH
from patchserve_server.store.shared.pointers import Pointers
from patchserve_server.store.shared.surroundings import Surroundings

SWEEP: Final = "sweep"  # the name of its lease
SWEEP_EVERY: Final = timedelta(days=1)
_PROBES: Final = "probe/"
_FOLDERS: Final = (BANKS, MANIFESTS)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did, or would do: keys of objects.

    Args:
        problems: why nothing was swept: pointers that are not understood.
        used: banks and manifests of current and previous revisions.
        young: unused ones within the grace: a save may be about to use them.
        swept: unused ones, which are in the trash now.
        swept_bytes: of them together.
        returned: used ones that were in the trash only, and are back.
        purged: what was removed for good: old trash, and what killed probes left.
    """

    problems: tuple[str, ...] = ()
    used: int = 0
    young: int = 0
    swept: tuple[str, ...] = ()
    swept_bytes: int = 0
    returned: tuple[str, ...] = ()
    purged: tuple[str, ...] = ()


def sweep(
    storage: ObjectStorage,
    surroundings: Surroundings,
    grace: timedelta = SWEEP_GRACE,
    *,
    is_dry_run: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
) -> SweepReport:
    """Move unused banks and manifests to the trash, and remove old trash.

    Objects are listed before pointers are read. So whatever a save puts meanwhile is younger than the grace, or was put
    again, which is seen by its time. If that happens in the last moment, whoever misses it finds it in the trash.

    Args:
        storage: has the objects.
        surroundings: the clock, which is compared with that of the storage, and threads.
        grace: how old an unused object is before it is moved, and an object of the trash before it is removed.
        is_dry_run: only say what would be done.
        is_stopping: whether it is to end before the next object.

    Raises:
        StorageUnavailableError: the store cannot be read or written, or this server stops. The next sweep goes on.
    """
    return _Sweep(storage, surroundings, surroundings.utc_now() - grace, is_dry_run, is_stopping).run()


@dataclass(frozen=True, slots=True)
class _Sweep:
    storage: ObjectStorage
    surroundings: Surroundings
    before: datetime  # what was written before is old
    is_dry_run: bool
    is_stopping: Callable[[], bool]

    def run(self) -> SweepReport:
        stored = [listed for folder in _FOLDERS for listed in self._contents(folder)]
        trash = list(self._contents(TRASH))
        probes = [listed.key for listed in self.storage.list(_PROBES) if self._is_old(listed)]
        used, problems = self._marked()
        if problems:
            return SweepReport(problems=problems)
        unused = [listed for listed in stored if listed.key not in used]
        swept = [listed for listed in unused if self._is_old(listed) and self._move(listed)]
        returned = self._give_back(used - {listed.key for listed in stored}, trash)
        # What has been moved just now is young, though the list of the trash has an old object of the same name.
        needed = {_digest(key) for key in (*returned, *(listed.key for listed in swept))}
        purged = [listed.key for listed in trash if self._is_old(listed) and _digest(listed.key) not in needed]
        if not self.is_dry_run:
            for key in (*purged, *probes):
                self._check_stopping()
                self.storage.delete(key)
        return SweepReport(
            used=len(used),
            young=len(unused) - len(swept),
            swept=tuple(listed.key for listed in swept),
            swept_bytes=sum(listed.size_bytes for listed in swept),
            returned=returned,
            purged=(*purged, *probes),
        )

    def _contents(self, folder: str) -> Iterator[ListedObject]:
        """Objects that are named by their digests. Others are not ours: perhaps another store is below this folder."""
        for listed in self.storage.list(folder):
            if re.fullmatch(REVISION_PATTERN, listed.key.removeprefix(folder)):
                yield listed

    def _marked(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """The keys that pointers name, and the pointers that are not understood."""
        used, problems = set(), []
        pointers = Pointers(self.storage)
        ids, strangers = _pointer_ids(self.storage.list(POINTERS))
        problems += [f"{key} is not understood" for key in strangers]
        for found in self.surroundings.each(pointers.read, ids):
            if isinstance(found.record, DamageError):
                problems.append(f'reference "{found.reference_id}": {found.record}')
            elif found.pointer is not None:
                for revision in found.pointer.revisions:
                    used |= {BANKS + revision.bank.digest, MANIFESTS + revision.manifest.digest}
        return frozenset(used), tuple(problems)

    def _move(self, listed: ListedObject) -> bool:
        """Moves an object to the trash, unless it was put again since it was listed."""
        self._check_stopping()
        found = self.storage.find(listed.key)
        if found is None or found.modified_time != listed.modified_time:
            return False
        if not self.is_dry_run:
            self.storage.copy(listed.key, TRASH + _digest(listed.key))
            self.storage.delete(listed.key)
        return True

    def _give_back(self, missing: frozenset[str], trash: Sequence[ListedObject]) -> tuple[str, ...]:
        digests = {_digest(listed.key) for listed in trash}
        returned = sorted(key for key in missing if _digest(key) in digests)
        if not self.is_dry_run:
            for key in returned:
                self.storage.copy(TRASH + _digest(key), key)
        return tuple(returned)

    def _check_stopping(self) -> None:
        if self.is_stopping():
            raise StorageUnavailableError("This server stops.", retry_after_s=1.0)

    def _is_old(self, listed: ListedObject) -> bool:
        return listed.modified_time < self.before


def _pointer_ids(listed: Iterator[ListedObject]) -> tuple[list[ReferenceId], list[str]]:
    """The ids of references, and the keys that are none."""
    ids, strangers = [], []
    for each in listed:
        try:
            ids.append(ReferenceId(each.key.removeprefix(POINTERS)))
        except InvalidInputError:
            strangers.append(each.key)
    return ids, strangers


def _digest(key: str) -> str:
    return key.rpartition("/")[2]
