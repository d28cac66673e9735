"""Locks of open files, between processes. They end when the file is closed, or with the process."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, Final

if sys.platform == "win32":
    import msvcrt

    # Windows locks bytes, and nobody else can read them then: one that no file of ours has.
    _LOCKED_BYTE: Final = 2**31 - 2

    def lock_file(file: IO[Any], *, waits: bool) -> None:
        """Lock a file that is open for writing.

        Raises:
            BlockingIOError: another process has locked it; if this one waits: for ten seconds.
        """
        position = file.tell()
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        finally:
            os.lseek(file.fileno(), position, os.SEEK_SET)

else:
    import fcntl

    def lock_file(file: IO[Any], *, waits: bool) -> None:
        """Lock a file that is open for writing.

        Raises:
            BlockingIOError: another process has locked it, and this one does not wait.
        """
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
