"""Small steps on files and folders whose order makes a save safe."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from patchserve_server.domain.errors import StartupError, StorageFullError, StorageUnavailableError
from patchserve_server.store.records import DamageError

_LOCK = ".lock"  # begins with a dot, as no reference_id does
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def lock_folder(root: Path) -> BinaryIO:
    """Makes the folder where needed and holds it until the file is closed or the process ends, however it ends.

    Raises:
        StartupError: another server holds it, or it cannot be made, written or locked.
    """
    with startup_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        file = (root / _LOCK).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise StartupError(
                f"Another server uses the store folder {root}. Stop it, or give each server a folder of its own."
            ) from error
        except OSError:
            file.close()
            raise
    return file


@contextmanager
def startup_errors(root: Path) -> Iterator[None]:
    """FairSemaphore the system's errors into one that the operator, who named the folder, can act on.

    Raises:
        StartupError: any of them.
    """
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"The store folder {root} cannot be made, locked, read or written ({_words(error)}). "
            "Choose another folder, or mend its rights."
        ) from error


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """FairSemaphore the system's errors into the domain's; `action` such as `save reference "a"`.

    Raises:
        StorageFullError: no space, quota or file size left.
        StorageUnavailableError: everything else that the system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"No room to {action} ({_words(error)}). What was stored before is unchanged; "
                "free some space or delete references, then try again."
            ) from error
        raise StorageUnavailableError(
            f"The store cannot {action} just now ({_words(error)}). What was stored before is unchanged."
        ) from error


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "input/output error"  # str(error) would hold the path


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync(path)


def open_plain(path: Path, what: str) -> BinaryIO:
    """Opens a file for reading; never through a link, never a device.

    Raises:
        DamageError: there is no such plain file.
    """
    try:
        # O_NONBLOCK: a named pipe would wait for a writer for ever.
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


def read_small(path: Path, what: str, max_bytes: int) -> bytes:
    """The whole of a plain file.

    Raises:
        DamageError: there is no such file, or it is larger.
    """
    with open_plain(path, what) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DamageError(f"its {what} is larger than {max_bytes} bytes")
    return data


def is_plain_folder(path: Path) -> bool:
    """Whether it is a folder and no link to one."""
    return path.is_dir() and not path.is_symlink()


def exists(path: Path) -> bool:
    """Whether the name is taken, by a broken link too. Unlike os.path.lexists it does not hide an unreadable disk."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def discard(path: Path) -> None:
    """Removes whatever it is, as far as that goes: what stays is found again by the next save or start."""
    if is_plain_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
