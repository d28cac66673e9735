"""The reference of a scan: from a store, or from a file. It is kept with the results, where all workers read it."""

from __future__ import annotations

import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from patchserve_server.domain.errors import PatchserveError, ReferenceNotFoundError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.store_address import is_url
from patchserve_server.scan.buckets import open_bucket
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.results import Results
from patchserve_server.store import ExportedFiles, read_reference
from patchserve_server.store.shared import DigestCache, SharedReferenceStore

REFERENCE: Final = "reference.patchserve"
_CHUNK_BYTES: Final = 2**20
_CACHE_BYTES: Final = 2**40  # one reference is all that comes


def reference_of_store(store: str, reference_id: str) -> Reference:
    """The current revision in a store that servers may be using: it is only read, and not locked.

    Raises:
        ScanError: there is no such store, or it has no such reference.
        PatchserveError: the reference is damaged, or the store cannot be read.
    """
    try:
        if is_url(store):
            return _reference_in_bucket(store, ReferenceId(reference_id))
        if not Path(store).is_dir():
            raise ScanError(f"There is no store folder {store}.")
        return read_reference(Path(store).absolute(), ReferenceId(reference_id))
    except ReferenceNotFoundError:
        raise ScanError(
            f'There is no reference "{reference_id}" in the store {store}; '
            f"`patchserve-server store check --store {store}` says which there are."
        ) from None


def _reference_in_bucket(url: str, reference_id: ReferenceId) -> Reference:
    with (
        tempfile.TemporaryDirectory() as cache,
        closing(SharedReferenceStore(open_bucket(url), DigestCache(Path(cache), _CACHE_BYTES))) as shared,
    ):
        return shared.load(reference_id)


def reference_of_file(file: Path, reference_id: str | None = None) -> Reference:
    """The reference in a file of `patchserve reference export`, verified as a whole.

    Args:
        file: the file.
        reference_id: that it gets; None: the one that it had.

    Raises:
        ScanError: it cannot be read, or is none.
    """
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as data, ExportedFiles(None).receive(size_bytes) as incoming:
            while chunk := data.read(_CHUNK_BYTES):
                incoming.write(chunk)
            imported = incoming.finish()
    except OSError as error:
        raise ScanError(f"{file} cannot be read: {error.strerror}.") from error
    except PatchserveError as error:
        raise ScanError(f"{file}: {error.message}") from error
    now = datetime.now(UTC)
    name = imported.reference_id if reference_id is None else ReferenceId(reference_id)
    return Reference(name, imported.revision, now, now, imported.model, imported.images)


def keep_reference(reference: Reference, results: Results) -> None:
    """Write the reference to the results."""
    with tempfile.TemporaryDirectory() as folder, ExportedFiles(Path(folder)).export(reference) as outgoing:
        file = Path(folder) / REFERENCE
        with file.open("wb") as data:
            while chunk := outgoing.read(_CHUNK_BYTES):
                data.write(chunk)
        results.write_file(REFERENCE, file)


def kept_reference(results: Results) -> Reference:
    """The reference that was kept."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / REFERENCE
        results.fetch(REFERENCE, file)
        return reference_of_file(file)
