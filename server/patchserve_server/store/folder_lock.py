"""The lock that keeps a second server out of a store folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from patchserve_server.domain.errors import StartupError, StorageUnavailableError
from patchserve_server.store.os_errors import startup_errors
from patchserve_server.system.file_locks import lock_file

_LOCK = ".lock"  # no reference_id starts with a dot
_log = logging.getLogger(__name__)


def is_locked(root: Path) -> bool:
    """Whether a server uses the folder now. It is not kept from starting at the same moment for longer than that."""
    try:
        with (root / _LOCK).open("rb+") as file:
            lock_file(file, waits=False)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or it is not ours to lock
        return False
    return False


class FolderLock:
    """Creates the folder if needed and locks it until `close`, or until the process ends.

    Raises:
        StartupError: another server has locked it, or it cannot be created, written or locked.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _LOCK
        self._is_loss_logged = False  # once is enough: callers decide how often they try
        with startup_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
            try:
                lock_file(self._file, waits=False)
            except BlockingIOError as error:
                self._file.close()
                raise StartupError(
                    f"A server already uses the store folder {root}. Stop it, or give each server its own folder."
                ) from error
            except OSError:
                self._file.close()
                raise

    def require(self) -> None:
        """Check that the lock file is still in the folder: without it, another server could use the folder.

        Raises:
            StorageUnavailableError: the folder or its lock file was deleted or replaced while the server runs.
        """
        try:
            is_ours = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            message = (
                "The store's folder was deleted or replaced while the server runs, so nothing can be changed. Open "
                "references still serve. Restart the server to use the folder that is there now."
            )
            if not self._is_loss_logged:
                _log.error(message)
            self._is_loss_logged = True
            raise StorageUnavailableError(message)

    def close(self) -> None:
        """Unlock the folder for other servers."""
        self._file.close()
