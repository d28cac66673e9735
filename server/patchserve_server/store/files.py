"""File operations that saving and deleting consist of."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from patchserve_server.store.damage import DamageError
from patchserve_server.system.disk import OPEN_PLAIN, sync_file


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk."""
    path.write_bytes(data)
    sync_file(path)


def open_plain_file(path: Path, name: str) -> BinaryIO:
    """Open a file for reading, but no link and no device. `name` is its name in the error, such as "manifest".

    Raises:
        DamageError: it is missing or not a plain file.
    """
    try:
        descriptor = os.open(path, OPEN_PLAIN)
    except (FileNotFoundError, NotADirectoryError):
        raise DamageError(f"its {name} is missing") from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO} or path.is_dir():  # Windows opens no folder
            raise DamageError(f"its {name} is not a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamageError(f"its {name} is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_small_file(path: Path, name: str, max_bytes: int) -> bytes:
    """All bytes of a plain file.

    Raises:
        DamageError: it is missing or not a plain file, or it is larger than max_bytes.
    """
    with open_plain_file(path, name) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DamageError(f"its {name} is larger than {max_bytes} bytes")
    return data


def is_plain_folder(path: Path) -> bool:
    """Whether it is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def exists(path: Path) -> bool:
    """Whether anything has this name, even a broken link. Unlike os.path.lexists it reports disk errors."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def try_remove(path: Path) -> None:
    """Remove a file or a folder. If that fails, the next save or start tries again."""
    if is_plain_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
