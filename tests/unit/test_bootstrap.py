"""What is put together, as far as no running server shows it."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from patchserve_server.bootstrap import _yield_to_the_loop


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_threads_that_compute_and_their_own_come_after_the_loop() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def of_a_thread_begun_here() -> int:
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(niceness).result()

    before = niceness()
    with ThreadPoolExecutor(1, initializer=_yield_to_the_loop) as pool:
        assert pool.submit(niceness).result() > before
        assert pool.submit(of_a_thread_begun_here).result() > before
    assert niceness() == before
