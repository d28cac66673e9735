"""The results of a scan in a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from patchserve_server.scan.errors import ScanError
from patchserve_server.system.disk import sync_file, sync_folder
from patchserve_server.system.file_locks import lock_file

_UNFINISHED: Final = ".unfinished"
_LOCK: Final = ".lock"


class FolderResults:
    """Implements `Results`. A file is written beside the others, and gets its name when it is on disk.

    Args:
        root: may be on a file system that the workers of a cluster share.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def name(self) -> str:
        return str(self._root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder, keeps other scans out, and removes what killed ones have left."""
        with ExitStack() as stack:
            with self._errors("be created or locked"):
                self._root.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self._root / _LOCK).open("ab"))
                try:
                    lock_file(lock, waits=False)
                except BlockingIOError as error:
                    message = f"Another scan writes to {self._root}. Wait for its end, or name another folder."
                    raise ScanError(message) from error
                shutil.rmtree(self._root / _UNFINISHED, ignore_errors=True)
            yield

    def read(self, name: str) -> bytes | None:
        with self._errors("be read"):
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        with self._errors("be written"), self._unfinished() as file:
            file.write_bytes(data)
            self._publish(file, name)

    def write_file(self, name: str, path: Path) -> None:
        with self._errors("be written"), self._unfinished() as file:
            shutil.copyfile(path, file)
            self._publish(file, name)

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        folder = self._root / _UNFINISHED
        folder.mkdir(exist_ok=True)
        file = folder / uuid4().hex
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    def _publish(self, file: Path, name: str) -> None:
        sync_file(file)
        target = self._root / name
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
        file.replace(target)
        sync_folder(target.parent)

    def fetch(self, name: str, path: Path) -> None:
        with self._errors("be read"):
            shutil.copyfile(self._root / name, path)

    def names(self, folder: str) -> Iterator[str]:
        with self._errors("be listed"):
            for parent, _, files in os.walk(self._root / folder):
                yield from (Path(parent, file).relative_to(self._root).as_posix() for file in files)

    def remove(self, name: str) -> None:
        with self._errors("be changed"):
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ScanError(f"The results in {self._root} cannot {what}: {reason}.") from error
