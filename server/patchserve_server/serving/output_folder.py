"""The folder of saved inspections: names of files, writing, and the limits on number, age and size.

An inspection is three files with the same start of their names:
`<time>-<number>-<reference>-<verdict>[-<name>]`, with the endings `.original.<format>`, `.overlay.<format>` and
`.json`, which is written last. Only files of these names are counted and removed.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.log_interval import LogInterval

_FILE = re.compile(r"(?P<stem>\d{8}T\d{12}-\d{6}-.+?)(?:\.original\.[a-z]+|\.overlay\.[a-z]+|\.json)")
_UNFINISHED: Final = ".part"
_TIME: Final = "%Y%m%dT%H%M%S%f"
_TIME_LENGTH: Final = 21
_MAX_NAME_BYTES: Final = 100
_TELL_EVERY_S: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderLimits:
    """What a folder holds at most; the oldest inspections are removed first."""

    count: int  # inspections
    age: timedelta
    nbytes: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.nbytes < 1 or self.age <= timedelta(0):
            raise ValueError("The limits of a folder are positive.")


class OutputFolder:
    """Writes inspections and removes the oldest ones. Every method blocks; use it on one thread."""

    def __init__(self, path: Path, limits: FolderLimits) -> None:
        """Create the folder if it is missing, and count what earlier servers have written.

        Raises:
            StartupError: it cannot be created or read.
        """
        self._path = path
        self._limits = limits
        self._number = itertools.count(1)
        self._unremoved = LogInterval(_TELL_EVERY_S)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._files = self._found()
        except OSError as error:
            message = f"--save-outputs {path}: {error.strerror}. Name a folder that the server's user can write to."
            raise StartupError(message) from error
        self._nbytes = sum(sum(sizes.values()) for sizes in self._files.values())
        self.prune()

    def change_limits(self, limits: FolderLimits) -> None:
        """Has other limits from now on, and removes what is over them."""
        self._limits = limits
        self.prune()

    @property
    def count(self) -> int:
        """How many inspections there are."""
        return len(self._files)

    def new_stem(self, labels: Iterable[str]) -> str:
        """The start of the names of one inspection's files, from its labels, such as reference and frame id."""
        now = datetime.now(UTC).strftime(_TIME)
        return "-".join([now, f"{next(self._number):06d}", *filter(None, map(_safe, labels))])

    def write(self, stem: str, contents: Mapping[str, bytes]) -> None:
        """Write the files of one inspection by the ends of their names, then remove what is over the limits.

        Raises:
            OSError: a file cannot be written. Then none of them is left.
        """
        paths = [self._path / f"{stem}{ending}" for ending in contents]
        try:
            for path, content in zip(paths, contents.values(), strict=True):
                unfinished = path.with_name(path.name + _UNFINISHED)
                unfinished.write_bytes(content)
                unfinished.replace(path)
        except OSError:
            self._remove(path.with_name(path.name + end) for path in paths for end in ("", _UNFINISHED))
            raise
        self._files[stem] = {f"{stem}{ending}": len(content) for ending, content in contents.items()}
        self._nbytes += sum(self._files[stem].values())
        self.prune()

    def prune(self) -> None:
        """Remove the oldest inspections until the limits hold."""
        oldest_allowed = (datetime.now(UTC) - self._limits.age).strftime(_TIME)
        while self._files:
            stem = next(iter(self._files))
            is_over = self.count > self._limits.count or self._nbytes > self._limits.nbytes
            if not is_over and stem[:_TIME_LENGTH] >= oldest_allowed:
                return
            sizes = self._files.pop(stem)
            self._nbytes -= sum(sizes.values())
            self._remove(self._path / name for name in sizes)

    def _found(self) -> dict[str, dict[str, int]]:
        """Inspections, the oldest first: sizes of files by name. What a killed server left unfinished is removed."""
        files: dict[str, dict[str, int]] = {}
        for entry in os.scandir(self._path):
            stem = _stem_of(entry.name.removesuffix(_UNFINISHED))
            if stem is None or not entry.is_file(follow_symlinks=False):
                continue
            if entry.name.endswith(_UNFINISHED):
                self._remove([Path(entry)])
            else:
                files.setdefault(stem, {})[entry.name] = entry.stat(follow_symlinks=False).st_size
        return dict(sorted(files.items()))

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        """Logs why a file was not removed, once a minute: calls decide how often it happens."""
        if self._unremoved.count() is not None:
            _log.error("--save-outputs: could not remove saved files: %s", error.strerror)


def _stem_of(file_name: str) -> str | None:
    match = _FILE.fullmatch(file_name)
    return None if match is None else match["stem"]


def _safe(label: str) -> str:
    """A text as a part of a file name, in any script: no separators, no dots at an end, not too long."""
    last_part = re.split(r"[/\\]", unicodedata.normalize("NFC", label))[-1]
    kept = "".join(character if character.isalnum() or character in "._-" else "_" for character in last_part)
    return kept.encode(errors="ignore")[:_MAX_NAME_BYTES].decode(errors="ignore").strip("._-")
