"""References in a folder, as docs/format.md states: immutable generations and one small pointer."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from patchserve_server.domain.errors import (
    InvalidInputError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    StartupError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.files import (
    discard,
    exists,
    is_plain_folder,
    lock_folder,
    read_small,
    startup_errors,
    storage_errors,
    sync,
    write_synced,
)
from patchserve_server.store.generation import (
    OpenGeneration,
    discard_generation,
    install_generation,
    write_generation,
)
from patchserve_server.store.records import (
    FORMAT_VERSION,
    REVISION_PATTERN,
    DamageError,
    Pointer,
    decode,
    encode,
)

_POINTER = "current.json"
_RETIRED_POINTER = "deleted.json"
_STAGING_PREFIX = ".patchserve-save-"  # begins with a dot, as no reference_id does
_MAX_POINTER_BYTES = 4096


class DiskReferenceStore:
    """A ReferenceStore in a folder that no other server uses. Large writes go on side by side; publishing takes turns.

    Raises:
        StartupError: the folder cannot be used, or another server uses it.
    """

    is_durable = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock_file = lock_folder(root)
        # Held while a pointer is read and what it names is opened, and while either is replaced or removed.
        self._turn = threading.Lock()
        try:
            with startup_errors(root):
                self._remove_leftovers()
        except StartupError:
            self.close()
            raise

    def close(self) -> None:
        """Lets another server use the folder."""
        self._lock_file.close()

    def save(self, reference: Reference) -> None:
        """Makes this revision the current one of its id. All or nothing: a kill leaves the old or the new.

        Raises:
            StorageFullError, StorageUnavailableError: the old revision stays.
            ValueError: the content could not be loaded again, or is not what the revision names: a bug of the caller.
        """
        reference_id = reference.reference_id
        pointer = Pointer(
            format_version=FORMAT_VERSION,
            reference_id=reference_id,
            revision=reference.revision,
            create_time=reference.create_time,
            update_time=reference.update_time,
        )
        with (
            storage_errors(f'save reference "{reference_id}"'),
            _staging_folder(self._root) as staged,
        ):
            write_generation(staged / reference.revision, reference.model, reference.revision)
            write_synced(staged / _POINTER, encode(pointer))
            with self._turn:
                _publish(staged, self._root / reference_id, reference.revision)

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision, proven by its digest.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its files do not hold what they should.
            StorageUnavailableError: it cannot be read.
        """
        folder = self._root / reference_id
        try:
            with storage_errors(f'read reference "{reference_id}"'):
                with self._turn:
                    if not exists(folder / _POINTER):
                        raise ReferenceNotFoundError(reference_id)
                    pointer = _read_pointer(folder)
                    generation = OpenGeneration(folder / pointer.revision)
                model = generation.read()
        except DamageError as error:
            message = f'The stored reference "{reference_id}" is damaged: {error}. Load it again or delete it.'
            raise ReferenceDamagedError(reference_id, message) from error
        return Reference(reference_id, Revision(pointer.revision), pointer.create_time, pointer.update_time, model)

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids that have a current revision, sorted; damaged ones too.

        Raises:
            StorageUnavailableError: the folder cannot be read.
        """
        with storage_errors("list its references"):
            return sorted(ReferenceId(folder.name) for folder in self._folders() if exists(folder / _POINTER))

    def delete(self, reference_id: ReferenceId) -> None:
        """Removes every revision of this id, a damaged one too.

        Raises:
            ReferenceNotFoundError: there is none.
            StorageFullError, StorageUnavailableError: it cannot be removed; it still loads.
        """
        folder = self._root / reference_id
        with storage_errors(f'delete reference "{reference_id}"'), self._turn:
            if not exists(folder / _POINTER):
                raise ReferenceNotFoundError(reference_id)
            if folder.is_symlink():
                folder.unlink()
                sync(self._root)
            else:
                _retire_pointer(folder)
                _remove_others(folder, None)

    def _folders(self) -> list[Path]:
        return [path for path in self._root.iterdir() if _is_reference_id(path.name)]

    def _remove_leftovers(self) -> None:
        """Removes what killed saves and deletions left. Nobody else can be at work: the folder is locked."""
        for staging in self._root.glob(f"{_STAGING_PREFIX}*"):
            discard(staging)
        for folder in filter(is_plain_folder, self._folders()):
            with suppress(DamageError):  # which revision it means is not known, so all stay
                _remove_others(folder, _read_pointer(folder).revision if exists(folder / _POINTER) else None)


def _is_reference_id(name: str) -> bool:
    try:
        ReferenceId(name)
    except InvalidInputError:
        return False
    return True


def _read_pointer(folder: Path) -> Pointer:
    """What the folder's current revision is.

    Raises:
        DamageError: the folder or its pointer breaks the format.
    """
    if folder.is_symlink():
        raise DamageError("its folder is a link to another folder")
    pointer = decode(Pointer, read_small(folder / _POINTER, "pointer", _MAX_POINTER_BYTES))
    if pointer.reference_id != folder.name:
        raise DamageError("its pointer is that of another reference")
    return pointer


@contextmanager
def _staging_folder(root: Path) -> Iterator[Path]:
    """A folder for one save, on the store's own disk, so that moving out of it is one step."""
    staged = Path(mkdtemp(prefix=_STAGING_PREFIX, dir=root))
    try:
        yield staged
    finally:
        discard(staged)


def _publish(staged: Path, folder: Path, revision: str) -> None:
    """Puts a written generation in place, then makes it the current one, then removes the others."""
    if folder.is_symlink():
        folder.unlink()
    if not folder.is_dir():
        folder.mkdir()
        sync(folder.parent)
    try:
        earlier = _read_pointer(folder)
    except DamageError:
        earlier = None
    try:
        install_generation(staged / revision, folder / revision)
        sync(folder)
        _swap_pointer(staged, folder, earlier)
    except OSError:
        if earlier is None or earlier.revision != revision:
            with suppress(OSError):
                sync(folder)  # only once the disk has the earlier pointer is it sure that nothing names this generation
                discard_generation(folder / revision)
        raise
    _remove_others(folder, revision)


def _swap_pointer(staged: Path, folder: Path, earlier: Pointer | None) -> None:
    """The one step that changes what is current. If the disk does not confirm it, the earlier pointer comes back."""
    pointer, spare = folder / _POINTER, staged / "earlier.json"
    if earlier is not None:
        write_synced(spare, encode(earlier))
    elif is_plain_folder(pointer):
        discard(pointer)
    (staged / _POINTER).replace(pointer)
    try:
        sync(folder)
    except OSError:
        if earlier is None:
            pointer.unlink()
        else:
            spare.replace(pointer)
        raise


def _retire_pointer(folder: Path) -> None:
    """The one step that deletes. If the disk does not confirm it, the pointer comes back."""
    discard(folder / _RETIRED_POINTER)
    (folder / _POINTER).rename(folder / _RETIRED_POINTER)
    try:
        sync(folder)
    except OSError:
        (folder / _RETIRED_POINTER).rename(folder / _POINTER)
        raise


def _remove_others(folder: Path, revision: str | None) -> None:
    """Removes all but this generation, as far as that goes. Only names that are ours are touched."""
    discard(folder / _RETIRED_POINTER)
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if re.fullmatch(REVISION_PATTERN, path.name) and path.name != revision:
                discard_generation(path)
        if revision is None:
            folder.rmdir()
