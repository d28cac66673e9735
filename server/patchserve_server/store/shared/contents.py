"""Banks and manifests: objects that are named by their digests and never change, and their copies on disk."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from patchserve_server.domain.reference import Bank, Calibration, Reference
from patchserve_server.store.bank_file import BankFile, write_bank_unsynced
from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import read_small_file
from patchserve_server.store.generation import (
    MAX_MANIFEST_BYTES,
    GenerationContent,
    encoded_manifest,
    verified_content,
)
from patchserve_server.store.objects.storage import (
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
)
from patchserve_server.store.records import Manifest, decode_manifest
from patchserve_server.store.shared.cache import DigestCache
from patchserve_server.store.shared.keys import BANKS, MANIFESTS, TRASH
from patchserve_server.store.shared.records import StoredBank, StoredFile, StoredRevision
from patchserve_server.store.shared.seen import SeenRevision
from patchserve_server.store.shared.surroundings import Surroundings

SWEEP_GRACE: Final = timedelta(hours=24)  # how old an unused object is before a sweep takes it
_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}

T = TypeVar("T")


class Contents:
    """Puts and reads the content of revisions.

    Args:
        storage: has it.
        cache: has copies of what was put or read.
        surroundings: the clock, which is compared with that of the storage.
    """

    def __init__(self, storage: ObjectStorage, cache: DigestCache, surroundings: Surroundings) -> None:
        self._storage = storage
        self._cache = cache
        self._surroundings = surroundings
        self._damaged: set[str] = set()  # digests of objects that were found damaged; put again by the next save

    def is_damaged(self, stored: StoredRevision) -> bool:
        """Whether the content of a revision was found damaged or missing. Nothing is read for that."""
        return not self._damaged.isdisjoint((stored.bank.digest, stored.manifest.digest))

    def put(self, reference: Reference) -> StoredRevision:
        """Puts what is not there yet. Nothing refers to it until a pointer does, which knows the parent too.

        Raises:
            ValueError: the reference could not be loaded again, or its digest is another.
            StorageUnavailableError: it cannot be put.
            OSError: the disk of the cache is full or broken.
        """
        model, bank = reference.model, reference.model.bank
        manifest = encoded_manifest(reference)
        file = self._put(BANKS, bank.nbytes, lambda path: write_bank_unsynced(path, bank))
        return StoredRevision(
            revision=reference.revision,
            update_time=reference.update_time,
            operation=reference.operation,
            parent=None,
            bank=StoredBank(digest=file.digest, size_bytes=file.size_bytes, **_described(bank)),
            manifest=self._put(MANIFESTS, len(manifest), lambda path: _write(path, manifest)),
            options=model.options,
            calibration=_without_scores(model.calibration),
            sensitivity=model.sensitivity,
        )

    def _put(self, folder: str, size_bytes: int, write: Callable[[Path], None]) -> StoredFile:
        with self._cache.part(size_bytes) as part:
            self._with_room(lambda: write(part))
            digest = _digest_of(part)
            stored = StoredFile(digest=digest, size_bytes=part.stat().st_size)
            self._put_object(folder + digest, stored, part)
            self._damaged.discard(digest)
            with suppress(OSError):
                self._cache.keep(part, digest)
            return stored

    def _put_object(self, key: str, stored: StoredFile, path: Path) -> None:
        """Puts an object, unless a whole one is there that no sweep takes soon."""
        found = self._storage.find(key)
        if found is None:
            with suppress(ObjectExistsError):  # somebody else has put it in this moment
                self._storage.create_from_file(key, path)
            return
        is_whole = found.size_bytes == stored.size_bytes and stored.digest not in self._damaged
        if not is_whole or self._surroundings.utc_now() - found.modified_time > SWEEP_GRACE / 2:
            self._storage.put_from_file(key, path)

    def manifest(self, stored: StoredRevision) -> Manifest:
        """The manifest of a revision.

        Raises:
            DamageError: it is missing or damaged.
            StorageUnavailableError: it cannot be read.
            OSError: the disk of the cache is full or broken.
        """
        return self._read(MANIFESTS, "manifest", stored.manifest, lambda path: _read_manifest(path, stored))

    def read(self, stored: StoredRevision) -> GenerationContent:
        """The content of a revision, verified by its digest.

        Raises:
            The errors of `manifest`.
        """
        manifest = self.manifest(stored)
        return self._read(BANKS, "bank file", stored.bank, lambda path: _read_bank(path, stored, manifest))

    def find_copy(self, revision: str, seen: SeenRevision) -> GenerationContent | None:
        """The content of a revision from the copies on disk, verified; None: they are not there, or damaged.

        Raises:
            OSError: the disk of the cache is broken.
        """
        manifest = self._copy(seen.manifest, lambda path: _manifest_in(path, seen.manifest, revision))
        if manifest is None:
            return None
        return self._copy(seen.bank, lambda path: verified_content(manifest, BankFile(path).read()))

    def _copy(self, digest: str, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of the copy; None: there is none, or it is damaged, and is removed."""
        if (kept := self._cache.find(digest)) is not None:
            try:
                return read(kept)
            except DamageError:
                self._cache.drop(digest)
        return None

    def _read(self, folder: str, name: str, stored: StoredFile, read: Callable[[Path], T]) -> T:
        """What `read` makes of the file: of the copy if there is one, and if that is not damaged."""
        digest = stored.digest
        if (copied := self._copy(digest, read)) is not None:
            return copied
        with self._cache.part(stored.size_bytes) as part:
            try:
                self._with_room(lambda: self._fetch(folder, name, stored, part))
                content = read(part)
            except DamageError:
                self._damaged.add(digest)
                raise
            with suppress(OSError):
                self._cache.keep(part, digest)
            return content

    def _fetch(self, folder: str, name: str, stored: StoredFile, part: Path) -> None:
        key, trash = folder + stored.digest, TRASH + stored.digest
        try:
            try:
                self._storage.get_to_file(key, part, max_bytes=stored.size_bytes)
            except ObjectMissingError:
                self._storage.copy(trash, key)  # a sweep was wrong: it is used
                self._storage.get_to_file(key, part, max_bytes=stored.size_bytes)
        except ObjectMissingError:
            raise DamageError(f"its {name} is missing") from None
        except ObjectTooLargeError:
            raise DamageError(f"its {name} is larger than {stored.size_bytes} bytes") from None
        if _digest_of(part) != stored.digest:
            raise DamageError(f"its {name} does not match its digest")

    def _with_room(self, write: Callable[[], None]) -> None:
        """Writes a file. On a full disk, the other files of the cache make room for it."""
        try:
            write()
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self._cache.clear()
            write()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _manifest_in(path: Path, digest: str, revision: str) -> Manifest:
    data = read_small_file(path, "manifest", MAX_MANIFEST_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DamageError("its manifest does not match its digest")
    manifest = decode_manifest(data)
    if manifest.revision != revision:
        raise DamageError("its manifest belongs to another revision")
    return manifest


def _read_manifest(path: Path, stored: StoredRevision) -> Manifest:
    manifest = _manifest_in(path, stored.manifest.digest, stored.revision)
    summary = (manifest.options, _without_scores(manifest.calibration), manifest.sensitivity)
    if summary != (stored.options, stored.calibration, stored.sensitivity):
        raise DamageError("its pointer and its manifest differ")
    return manifest


def _read_bank(path: Path, stored: StoredRevision, manifest: Manifest) -> GenerationContent:
    content = verified_content(manifest, BankFile(path).read())
    if _described(content.model.bank) != stored.bank.model_dump(exclude={"digest", "size_bytes"}):
        raise DamageError("its pointer describes another bank")
    return content


def _described(bank: Bank) -> dict[str, int]:
    return {
        "image_count": len(bank.inputs),
        "height_px": bank.input_shape.height_px,
        "width_px": bank.input_shape.width_px,
        "vector_count": bank.vector_count,
        "feature_dim": bank.feature_dim,
        "array_bytes": bank.nbytes,
    }


def _without_scores(calibration: Calibration) -> Calibration:
    return dataclasses.replace(calibration, normal_scores=dataclasses.replace(calibration.normal_scores, scores=()))


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
