"""Where the images of a scan are: in a folder, in a bucket, or where the lines of a file say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from patchserve_server.domain.store_address import is_url
from patchserve_server.scan.buckets import Buckets
from patchserve_server.scan.errors import ScanError

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SORTED_AT_ONCE: Final = 100_000  # names of one folder; more would take memory without a bound


class Source(Protocol):
    """Lists images. Each path is absolute, or a URL."""

    @property
    def name(self) -> str:
        """Its absolute path or its URL."""

    def list(self) -> Iterator[str]:
        """The paths of all images. Listed as they come: there may be millions.

        Raises:
            ScanError: it cannot be listed.
            StorageUnavailableError: the bucket does not answer.
        """


def open_source(text: str, results: str) -> Source:
    """The source that a command names.

    Args:
        text: a folder, the URL of a bucket, or a file with paths or URLs in its lines.
        results: where the scan writes, which is left out: overlays are images, too.

    Raises:
        ScanError: there is no such source.
    """
    if is_url(text):
        return _Bucket(text.rstrip("/"), results.rstrip("/"))
    path = os.path.abspath(text)  # noqa: PTH100 - resolve() would follow links
    if os.path.isdir(path):  # noqa: PTH112
        return _Folder(path, results)
    if not os.path.isfile(path):  # noqa: PTH113
        raise ScanError(f"There is no folder {text}, and no file that lists images.")
    if path.lower().endswith(SUFFIXES):
        raise ScanError(f"{text} is one image: `patchserve infer` inspects it. Name a folder, or a file of paths.")
    return _List(path)


class _Folder:
    """The images in a folder and its subfolders, sorted by name. Hidden ones are skipped.

    Links count as what they point to; a link to a folder above itself is not followed.
    """

    def __init__(self, root: str, results: str) -> None:
        self.name = root
        self._closed = frozenset() if is_url(results) else frozenset({os.path.realpath(results)})

    def list(self) -> Iterator[str]:
        yield from _walk(self.name, self._closed)


def _walk(folder: str, closed: frozenset[str]) -> Iterator[str]:
    closed |= {os.path.realpath(folder)}
    try:
        with os.scandir(folder) as entries:
            while found := sorted(map(_kind_of, islice(entries, _SORTED_AT_ONCE))):
                for name, is_folder, is_file in found:
                    path = os.path.join(folder, name)  # noqa: PTH118 - a Path for each of millions takes longer
                    if name.startswith("."):
                        continue
                    if is_folder and os.path.realpath(path) not in closed:
                        yield from _walk(path, closed)
                    elif is_file and name.lower().endswith(SUFFIXES):
                        yield path
    except OSError as error:
        raise ScanError(f"{folder} cannot be listed: {error.strerror}.") from error


def _kind_of(entry: os.DirEntry[str]) -> tuple[str, bool, bool]:
    """Name, whether it is a folder, whether it is a file."""
    return entry.name, entry.is_dir(), entry.is_file()


class _Bucket:
    """The objects of a bucket below a prefix whose keys end like images, in the order of their keys."""

    def __init__(self, url: str, results: str) -> None:
        self.name = url
        self._closed = f"{results}/"

    def list(self) -> Iterator[str]:
        with Buckets() as buckets:
            bucket = "/".join(self.name.split("/")[:3])
            for key in buckets.keys(self.name):
                url = f"{bucket}/{key}"
                if key.lower().endswith(SUFFIXES) and not url.startswith(self._closed):
                    yield url


class _List:
    """The images that the lines of a file name, whatever their names end with. Paths start in the current folder."""

    def __init__(self, path: str) -> None:
        self.name = path

    def list(self) -> Iterator[str]:
        try:
            with Path(self.name).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
                for line in lines:
                    if path := line.rstrip("\r\n"):
                        yield path if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - as above
        except OSError as error:
            raise ScanError(f"{self.name} cannot be read: {error.strerror}.") from error
