"""The memory of this process, and how much it may have."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path
from typing import Final

from patchserve_server.system.limits import cgroup_bytes, machine_bytes

_STATM: Final = Path("/proc/self/statm")


def used_bytes() -> int | None:
    """What is resident; None: this system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE
    return None


def total_bytes() -> int | None:
    """The memory of the machine, or of the container if it has a lower limit; None: this system does not say."""
    return min((nbytes for nbytes in (machine_bytes(), cgroup_bytes()) if nbytes is not None), default=None)
