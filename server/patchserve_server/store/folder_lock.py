"""The lock that keeps a second server out of a store folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from patchserve_server.domain.errors import StartupError
from patchserve_server.store.os_errors import startup_errors

_LOCK = ".lock"  # starts with a dot, which no reference_id does


def lock_folder(root: Path) -> BinaryIO:
    """Create the folder if needed and lock it until the returned file is closed or the process ends.

    Raises:
        StartupError: another server has locked it, or it cannot be created, written or locked.
    """
    with startup_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        file = (root / _LOCK).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise StartupError(
                f"Another server uses the store folder {root}. Stop it, or give each server its own folder."
            ) from error
        except OSError:
            file.close()
            raise
    return file
