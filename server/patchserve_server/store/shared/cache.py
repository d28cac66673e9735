"""A folder of objects that are named by the SHA-256 of their bytes. Several processes may use one."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from patchserve_server.store.records import REVISION_PATTERN

_PART_PREFIX: Final = ".part-"
_ABANDONED_S: Final = 900.0  # after which a file that nobody writes to is what a killed process left
_SLACK: Final = 16  # the share of the limit that may be written before what is there is counted again


@dataclass(frozen=True, slots=True, order=True)
class _Kept:
    used_at_s: float  # since the epoch
    name: str
    size_bytes: int
    is_part: bool


class DigestCache:
    """Files by their digests, within a limit: the least recently used ones leave.

    Nothing in it is needed: what is missing or damaged is fetched again. So nothing waits until it is on disk, and a
    kill leaves at most an unfinished file, which leaves too. A file that another process removes can be read by
    whoever has opened it.

    Args:
        folder: of the files; it is created if it does not exist.
        max_bytes: of all files together. Each process may exceed it by a sixteenth.

    Raises:
        OSError: the folder cannot be created or read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._written_bytes = 0  # since all files were counted
        self.make_room(0)

    def find(self, digest: str) -> Path | None:
        """The file with this digest, if it is there. It may be damaged, and it may be gone when it is opened."""
        path = self._folder / digest
        try:
            os.utime(path)
        except OSError:
            return None
        return path

    def drop(self, digest: str) -> None:
        """Removes a file that is damaged."""
        with suppress(OSError):
            (self._folder / digest).unlink()

    @contextmanager
    def part(self, size_bytes: int) -> Iterator[Path]:
        """The path of a new file, which is removed at the end of the block unless `keep` has taken it.

        Args:
            size_bytes: that it will have.
        """
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have cleaned up
        size_bytes = size_bytes if size_bytes <= self._max_bytes else 0  # it is not kept, so nothing leaves for it
        self._written_bytes += size_bytes
        if self._written_bytes > self._max_bytes // _SLACK:
            self.make_room(size_bytes)
        path = self._folder / f"{_PART_PREFIX}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def keep(self, part: Path, digest: str) -> None:
        """Keeps a file under its digest, which the caller has verified. One that is too large is not kept.

        Raises:
            OSError: it cannot be kept.
        """
        if part.stat().st_size <= self._max_bytes:
            part.replace(self._folder / digest)

    def clear(self) -> None:
        """Removes all files that are not being written.

        Raises:
            OSError: the folder cannot be read.
        """
        for each in list(self._files()):
            if not each.is_part:
                self.drop(each.name)

    def make_room(self, size_bytes: int) -> None:
        """Removes the least recently used files until another one of this size fits, and what killed processes left.

        Raises:
            OSError: the folder cannot be read.
        """
        self._written_bytes = 0
        kept = sorted(self._files())
        excess = sum(each.size_bytes for each in kept) + size_bytes - self._max_bytes
        abandoned_at_s = time.time() - _ABANDONED_S
        for each in kept:
            if each.used_at_s < abandoned_at_s if each.is_part else excess > 0:
                with suppress(OSError):
                    (self._folder / each.name).unlink()
                    excess -= each.size_bytes

    def _files(self) -> Iterator[_Kept]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_part = entry.name.startswith(_PART_PREFIX)
                if is_part or re.fullmatch(REVISION_PATTERN, entry.name):
                    with suppress(FileNotFoundError):  # another process has removed it
                        found = entry.stat(follow_symlinks=False)
                        yield _Kept(found.st_mtime, entry.name, found.st_size, is_part)
