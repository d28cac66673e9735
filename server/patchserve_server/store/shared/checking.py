"""Says what is intact in a bucket, without changing it; and mends what can be mended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.bank_file import BankFile
from patchserve_server.store.check import CheckedGeneration, CheckedReference
from patchserve_server.store.damage import DamageError
from patchserve_server.store.generation import MAX_MANIFEST_BYTES, verified_content
from patchserve_server.store.objects.storage import ObjectMissingError, ObjectStorage, ObjectTooLargeError
from patchserve_server.store.records import decode_manifest
from patchserve_server.store.shared.index_objects import Entry, IndexObjects
from patchserve_server.store.shared.index_writer import IndexWriter, listed_pointers
from patchserve_server.store.shared.keys import ALL_SHARDS, BANKS, MANIFESTS, POINTERS, TRASH
from patchserve_server.store.shared.pointers import FoundPointer, Pointers
from patchserve_server.store.shared.records import SharedPointer, StoredFile, StoredRevision
from patchserve_server.store.shared.repair import repair_index
from patchserve_server.store.shared.surroundings import Surroundings

_IN_TRASH: Final = "is in the trash; `store check --repair` or its next use puts it back"


@dataclass(frozen=True, slots=True)
class CheckedIndex:
    """The index of a bucket beside its pointers, and what nobody understands."""

    differing: tuple[ReferenceId, ...]  # whose entries are not what their pointers say
    is_readable: bool  # whether its root is intact, or there are no references
    strangers: tuple[str, ...]  # keys of objects that are no pointers, where only pointers are

    @property
    def is_intact(self) -> bool:
        """Whether servers learn from it what is stored."""
        return self.is_readable and not self.differing


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was mended."""

    entries: tuple[ReferenceId, ...]  # of the index, that were looked at again
    returned: tuple[str, ...]  # banks and manifests that are back from the trash


def check_bucket(
    storage: ObjectStorage, surroundings: Surroundings, *, is_quick: bool = False
) -> Iterator[CheckedReference]:
    """Read every current and previous revision, and verify its digest. Deleted references are left out.

    Args:
        storage: has them.
        surroundings: threads.
        is_quick: only look whether the objects are there, with their sizes.

    Raises:
        StorageUnavailableError: the store cannot be read.
        OSError: the disk for temporary files is full or broken.
    """
    with TemporaryDirectory(prefix="patchserve-") as folder:
        checking = _Checking(storage, Path(folder), is_quick)
        for found in surroundings.each(Pointers(storage).read, sorted(listed_pointers(storage))):
            if found.is_there:
                yield checking.reference(found)


def check_index(storage: ObjectStorage, surroundings: Surroundings) -> CheckedIndex:
    """Compare the index with the versions of all pointers, which one LIST says.

    Raises:
        StorageUnavailableError: the store cannot be read, or a newer server wrote the index.
    """
    objects = IndexObjects(storage)
    root = objects.root()
    entries: dict[ReferenceId, Entry] = {}
    for shard in surroundings.each(objects.shard, ALL_SHARDS):
        entries |= {} if shard is None else shard.entries
    listed = listed_pointers(storage)
    differing = {name for name, each in listed.items() if name not in entries}
    differing |= {name for name in listed.keys() & entries if not entries[name].version.is_same(listed[name].version)}
    differing |= entries.keys() - listed.keys()
    names = {POINTERS + name for name in listed}
    strangers = tuple(each.key for each in storage.list(POINTERS) if each.key not in names)
    return CheckedIndex(tuple(sorted(differing)), not listed or bool(root and root.shards is not None), strangers)


def repair_bucket(storage: ObjectStorage, surroundings: Surroundings) -> Repaired:
    """Make the index what the pointers say, and put back used objects that are in the trash only.

    Raises:
        StorageUnavailableError: the store cannot be read or written.
    """
    objects, pointers = IndexObjects(storage), Pointers(storage)
    writer = IndexWriter(storage, objects, pointers, surroundings)
    entries = repair_index(storage, objects, writer, surroundings)
    returned = []
    trash = {each.key for each in storage.list(TRASH)}
    stored = {each.key for folder in (BANKS, MANIFESTS) for each in storage.list(folder)}
    for found in surroundings.each(pointers.read, sorted(listed_pointers(storage))):
        for key, digest in _used(found).items():
            if key not in stored and TRASH + digest in trash:
                storage.copy(TRASH + digest, key)
                returned.append(key)
    return Repaired(entries, tuple(dict.fromkeys(returned)))


def _used(found: FoundPointer) -> Mapping[str, str]:
    if found.pointer is None:
        return {}
    files = [(BANKS, each.bank) for each in found.pointer.revisions]
    return {folder + file.digest: file.digest for folder, file in files} | {
        MANIFESTS + each.manifest.digest: each.manifest.digest for each in found.pointer.revisions
    }


@dataclass(frozen=True, slots=True)
class _Checking:
    storage: ObjectStorage
    folder: Path  # for temporary files
    is_quick: bool

    def reference(self, found: FoundPointer) -> CheckedReference:
        if not isinstance(found.record, SharedPointer):
            return CheckedReference(found.reference_id, "", str(found.record), ())
        generations = tuple(self._generation(stored) for stored in found.record.revisions)
        previous = found.record.previous
        return CheckedReference(
            found.reference_id,
            found.record.current.revision,
            generations[0].problem,
            generations,
            "" if previous is None else previous.revision,
        )

    def _generation(self, stored: StoredRevision) -> CheckedGeneration:
        problem = ""
        try:
            if self.is_quick:
                self._find(BANKS, "bank file", stored.bank)
                self._find(MANIFESTS, "manifest", stored.manifest)
            else:
                self._read(stored)
        except DamageError as error:
            problem = str(error)
        images, patches = (0, 0) if problem else (stored.bank.image_count, stored.bank.vector_count)
        return CheckedGeneration(stored.revision, problem, images, patches, stored.update_time)

    def _find(self, folder: str, name: str, file: StoredFile) -> None:
        found = self.storage.find(folder + file.digest)
        if found is None:
            raise self._missing(name, file)
        if found.size_bytes != file.size_bytes:
            raise DamageError(f"its {name} has {found.size_bytes} bytes instead of {file.size_bytes}")

    def _read(self, stored: StoredRevision) -> None:
        data = self._fetch(MANIFESTS, "manifest", stored.manifest, MAX_MANIFEST_BYTES).read_bytes()
        manifest = decode_manifest(data)
        if manifest.revision != stored.revision:
            raise DamageError("its manifest belongs to another revision")
        bank = self._fetch(BANKS, "bank file", stored.bank, stored.bank.size_bytes)
        verified_content(manifest, BankFile(bank).read())

    def _fetch(self, folder: str, name: str, file: StoredFile, max_bytes: int) -> Path:
        path = self.folder / "object"  # one after the other
        try:
            self.storage.get_to_file(folder + file.digest, path, max_bytes=max_bytes)
        except ObjectMissingError:
            raise self._missing(name, file) from None
        except ObjectTooLargeError:
            raise DamageError(f"its {name} is larger than {max_bytes} bytes") from None
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.digest:
                raise DamageError(f"its {name} does not match its digest")
        return path

    def _missing(self, name: str, file: StoredFile) -> DamageError:
        is_in_trash = self.storage.find(TRASH + file.digest) is not None
        return DamageError(f"its {name} {_IN_TRASH if is_in_trash else 'is missing'}")
