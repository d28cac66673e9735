"""Reloads files when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from patchserve_server.domain.errors import StartupError

T = TypeVar("T")

INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Reloading(Generic[T]):
    """A value that is parsed from files, and parsed again when they change.

    Args:
        files: flag -> file.
        parse: makes the value from the bytes of the files, in this order. Raises a StartupError if it cannot.

    Raises:
        StartupError: a file cannot be read or parsed.
    """

    def __init__(self, files: dict[str, Path], parse: Callable[..., T]) -> None:
        self._files = files
        self._parse = parse
        self._contents = self._read_files()
        self._last_error = ""
        self.value = self._parse_contents(self._contents)

    @property
    def flags(self) -> str:
        """The flags that name the files."""
        return ", ".join(self._files)

    def reload(self) -> bool:
        """Read the files, and parse them if their bytes changed. Blocks. Returns whether the files are in use now.

        If they cannot be read or parsed, the value stays as it is and the error is logged once.
        """
        try:
            contents = self._read_files()
            if contents != self._contents:
                self.value = self._parse_contents(contents)
                self._contents = contents
                _log.info("Reloaded %s", ", ".join(f"{flag} {path}" for flag, path in self._files.items()))
        except StartupError as error:
            if error.message != self._last_error:
                _log.error("%s The previous content stays in use.", error.message)
            self._last_error = error.message
            return False
        self._last_error = ""
        return True

    def _parse_contents(self, contents: list[bytes]) -> T:
        try:
            return self._parse(*contents)
        except StartupError:
            raise
        except Exception as error:  # after any error of a parser the files must be read again the next time
            raise StartupError(f"{', '.join(self._files)}: cannot be parsed ({type(error).__name__}).") from error

    def _read_files(self) -> list[bytes]:
        # There are few files, and they are small. Comparing contents is more reliable than comparing times, and works
        # with links and mounts.
        return [_read_file(flag, path) for flag, path in self._files.items()]


def _read_file(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        raise StartupError(f"{flag} {path}: {reason}. Name a file that the server's user can read.") from error


class Reloader:
    """Reloads values every second, and at once when it is asked to."""

    def __init__(self, values: Iterable[Reloading[Any]]) -> None:
        self._values = tuple(values)
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Reload now, and log what is in use."""
        self._requested.set()

    async def run(self) -> None:
        """Reload until cancelled. Files are read on a thread, so the event loop never waits for a disk."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._requested.wait()
            is_requested = self._requested.is_set()
            self._requested.clear()
            in_use = [await asyncio.to_thread(value.reload) for value in self._values]
            if is_requested:
                self._report(in_use)

    def _report(self, in_use: list[bool]) -> None:
        report = [
            f"{value.flags}: {'in use as they are now' if is_in_use else 'cannot be used, the previous content stays'}"
            for value, is_in_use in zip(self._values, in_use, strict=True)
        ]
        files = "; ".join(report) or "there is no file of tokens, keys or certificates"
        _log.info("Read the files again: %s.", files)
