"""Gives memory back to the system after a burst.

glibc keeps freed memory for later, one pool for each few threads. After a burst of large messages that is several
hundred MiB, which other programs cannot use. Fewer pools (MALLOC_ARENA_MAX) do not change that.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

INTERVAL_S: Final = 5.0
MIN_GROWTH_BYTES: Final = 64 * 2**20  # less is not worth the page faults of using it again
_STATM: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """The memory of this process that is in RAM. Linux only."""
    return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE


def find_malloc_trim() -> Callable[[], object] | None:
    """Gives all freed memory back, in some 0.1 s for a GiB; other threads run meanwhile. None: not glibc on Linux."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return None if trim is None else lambda: trim(0)


async def return_memory_periodically(interval_s: float = INTERVAL_S) -> None:
    """Gives freed memory back when this process has grown, and again until there is nothing more to give back."""
    if (trim := find_malloc_trim()) is None:
        return
    lowest, more_to_come = resident_bytes(), False
    while True:
        await asyncio.sleep(interval_s)
        before = resident_bytes()
        if more_to_come or before - lowest >= MIN_GROWTH_BYTES:
            await asyncio.to_thread(trim)
            lowest = resident_bytes()
            more_to_come = before - lowest >= MIN_GROWTH_BYTES  # the burst may not be over
        lowest = min(lowest, before)
