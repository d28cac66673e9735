"""The memory of this process, and how much it may have."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def used_bytes() -> int | None:
    """What is resident; None: this system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def total_bytes() -> int | None:
    """The memory of the machine, or of the container if it has a lower limit; None: this system does not say."""
    found = []
    with suppress(AttributeError, OSError, ValueError):  # there is no sysconf on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # "max": no limit
            found.append(int(path.read_text()))
    return min(found, default=None)
