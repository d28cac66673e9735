"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from patchserve_server.domain.errors import StartupError

T = TypeVar("T")

INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Reloading(Generic[T]):
    """What some files hold together. What cannot be used is logged once, and the value before it stays.

    Args:
        files: the flag that names a file, and the file.
        parse: makes the value of the files' bytes, given in this order; a StartupError says what is wrong with them.

    Raises:
        StartupError: they cannot be read or used.
    """

    def __init__(self, files: dict[str, Path], parse: Callable[..., T]) -> None:
        self._files = files
        self._parse = parse
        self._contents = self._read()
        self._problem = ""
        self.value = self._parsed(self._contents)

    def refresh(self) -> None:
        """Reads the files, and parses them where they hold something new. Blocks; never raises a StartupError."""
        try:
            contents = self._read()
            if contents != self._contents:
                self.value = self._parsed(contents)
                self._contents = contents
                _log.info("Taken anew: %s", ", ".join(f"{flag} {path}" for flag, path in self._files.items()))
            self._problem = ""
        except StartupError as error:
            if error.message != self._problem:
                _log.error("%s What was read before stays in use.", error.message)
            self._problem = error.message

    def _parsed(self, contents: list[bytes]) -> T:
        try:
            return self._parse(*contents)
        except StartupError:
            raise
        except Exception as error:  # a file that a parser stumbles over must not end the watching
            raise StartupError(f"{', '.join(self._files)}: of no use ({type(error).__name__}).") from error

    def _read(self) -> list[bytes]:
        # A few small files: comparing what they hold is surer than comparing times, and works with links and mounts.
        return [_bytes_of(flag, path) for flag, path in self._files.items()]


def _bytes_of(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        raise StartupError(f"{flag} {path}: {reason}. Name a file that the server's user may read.") from error


async def keep_fresh(watched: Iterable[Reloading[Any]]) -> None:
    """Refreshes them every second until it is cancelled. A thread reads: nobody waits for a disk."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        for one in watched:
            await asyncio.to_thread(one.refresh)
