"""Converts system errors to errors of the domain. Messages to callers contain no path."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchserve_server.domain.errors import StartupError, StorageFullError, StorageUnavailableError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def startup_errors(root: Path) -> Iterator[None]:
    """Raise system errors as a StartupError whose message says what to do about the store folder.

    Raises:
        StartupError: for any system error.
    """
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"The store folder {root} cannot be created, locked, read or written ({reason_of(error)}). "
            "Choose another folder or correct its permissions."
        ) from error


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Raise system errors as storage errors; `action` describes the operation, such as `save reference "a"`.

    Raises:
        StorageFullError: the disk is full, or a quota or the file size limit is reached.
        StorageUnavailableError: for any other system error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFullError(
                f"Not enough disk space to {action} ({reason_of(error)}). The stored references are unchanged; "
                "free some space or delete references, then try again."
            ) from error
        raise StorageUnavailableError(
            f"The store cannot {action} at the moment ({reason_of(error)}). The stored references are unchanged."
        ) from error


def reason_of(error: OSError) -> str:
    """What the system says, without a path."""
    return os.strerror(error.errno) if error.errno else "input/output error"  # str(error) would contain the path
