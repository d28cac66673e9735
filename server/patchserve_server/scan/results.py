"""Where a scan writes: a folder, or a bucket. Whatever is written is there as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from patchserve_server.domain.store_address import is_url
from patchserve_server.scan.bucket_results import BucketResults
from patchserve_server.scan.buckets import open_bucket
from patchserve_server.scan.folder_results import FolderResults


class Results(Protocol):
    """Files by name, such as verdicts/part-000000.parquet. Blocking; called from several threads at once.

    Every method may raise a ScanError or a StorageUnavailableError: the place cannot be used now.
    """

    @property
    def name(self) -> str:
        """The absolute path of the folder, or the URL."""

    def read(self, name: str) -> bytes | None:
        """A file; None: there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, whatever was there. After a kill, it is the old one or the new one."""

    def write_file(self, name: str, path: Path) -> None:
        """The same with the content of a local file."""

    def fetch(self, name: str, path: Path) -> None:
        """Writes the content of a file, which must exist, to a local one."""

    def names(self, folder: str) -> Iterator[str]:
        """The names of the files in a folder and its subfolders, such as plan/000000.json."""

    def remove(self, name: str) -> None:
        """Removes a file. One that is missing is fine."""


@contextmanager
def open_results(place: str) -> Iterator[Results]:
    """The results of a scan. A folder is created, and locked until the block ends.

    Raises:
        ScanError: the place cannot be used, or another scan writes to it.
    """
    with ExitStack() as stack:
        results = join_results(place, stack)
        if isinstance(results, FolderResults):
            stack.enter_context(results.locked())
        yield results


def join_results(place: str, resources: ExitStack) -> Results:
    """The same for a worker of a scan that has opened them."""
    if not is_url(place):
        return FolderResults(Path(place))
    bucket = open_bucket(place)
    resources.callback(bucket.close)
    return BucketResults(bucket)
