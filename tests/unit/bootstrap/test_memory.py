"""Freed memory goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from patchserve_server.bootstrap.memory import find_malloc_trim, return_memory_periodically

# Half of the small blocks stay, so that free() alone gives nothing back.
CODE = """
import asyncio
from patchserve_server.bootstrap.memory import resident_bytes, return_memory_periodically
async def main():
    returning = asyncio.create_task(return_memory_periodically(0.01))
    await asyncio.sleep(0)
    blocks = [bytearray(20_000) for _ in range(20_000)]
    full = resident_bytes()
    kept = blocks[::100]
    del blocks
    while resident_bytes() > full / 2:  # the test ends with a time limit if this never happens
        await asyncio.sleep(0.01)
    returning.cancel()
    print(len(kept))
asyncio.run(main())
"""


@pytest.mark.skipif(find_malloc_trim() is None, reason="needs glibc")
def test_memory_of_a_burst_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "200\n"


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    asyncio.run(return_memory_periodically(0.01))
