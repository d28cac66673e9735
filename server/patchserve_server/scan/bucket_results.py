"""The results of a scan in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from patchserve_server.scan.errors import ScanError
from patchserve_server.store.objects import ObjectMissingError, ObjectStorage

_MAX_BYTES: Final = 2**33  # of a file of a scan: a reference may be large


class BucketResults:
    """Implements `Results`. An object is there as a whole, or not at all. Nothing keeps a second scan out: both would
    do the same work, and publish the same rows.
    """

    def __init__(self, bucket: ObjectStorage) -> None:
        self._bucket = bucket

    @property
    def name(self) -> str:
        return self._bucket.name.rstrip("/")

    def read(self, name: str) -> bytes | None:
        try:
            found = self._bucket.get(name, max_bytes=_MAX_BYTES)
        except ObjectMissingError:
            return None
        return None if found is None else found.data

    def write(self, name: str, data: bytes) -> None:
        self._bucket.put(name, data)

    def write_file(self, name: str, path: Path) -> None:
        self._bucket.put_from_file(name, path)

    def fetch(self, name: str, path: Path) -> None:
        try:
            self._bucket.get_to_file(name, path, max_bytes=_MAX_BYTES)
        except ObjectMissingError as error:
            raise ScanError(f"{self.name}/{name} is missing; --restart begins again.") from error

    def names(self, folder: str) -> Iterator[str]:
        return (found.key for found in self._bucket.list(f"{folder}/"))

    def remove(self, name: str) -> None:
        self._bucket.delete(name)
