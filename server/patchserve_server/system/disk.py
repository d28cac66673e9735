"""Waits until a change is on disk, and opens nothing but plain files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

if sys.platform == "win32":
    # There are neither named pipes nor devices in folders, and only administrators make links.
    OPEN_PLAIN: Final = os.O_RDONLY | os.O_BINARY
    _SYNC: Final = os.O_RDWR | os.O_BINARY  # a file that is open for reading cannot be flushed

    def sync_folder(_: Path) -> None:
        """Do nothing: Windows flushes no folder. NTFS writes names to its journal by itself."""

else:
    OPEN_PLAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe would wait for its writer
    _SYNC: Final = os.O_RDONLY

    def sync_folder(path: Path) -> None:
        """Wait until the names in a folder are on disk."""
        _sync(path)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file are on disk."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, _SYNC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
