"""Steps on files and folders, from which a save or a deletion is made."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from patchserve_server.store.damage import DamageError


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    path.write_bytes(data)
    sync(path)


def open_plain_file(path: Path, what: str) -> BinaryIO:
    """Open a file for reading, but no link and no device. `what` names it in the error, such as "manifest".

    Raises:
        DamageError: there is no such plain file.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise DamageError(f"its {what} is missing") from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise DamageError(f"its {what} is not a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamageError(f"its {what} is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_small_file(path: Path, what: str, max_bytes: int) -> bytes:
    """All bytes of a plain file.

    Raises:
        DamageError: there is no such plain file, or it is larger than max_bytes.
    """
    with open_plain_file(path, what) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DamageError(f"its {what} is larger than {max_bytes} bytes")
    return data


def is_plain_folder(path: Path) -> bool:
    """Whether it is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def exists(path: Path) -> bool:
    """Whether there is anything of this name, even a broken link. Unlike os.path.lexists it reports disk errors."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def try_remove(path: Path) -> None:
    """Remove a file or a folder. What cannot be removed is left for the next save or start to remove."""
    if is_plain_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
