"""Settings that depend on where the server runs."""

from __future__ import annotations

import os

import pytest

from patchserve_server.config import Settings


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="here a process runs on every core")
def test_threads_are_as_many_as_the_cores_that_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSERVE_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Settings().threads == len(os.sched_getaffinity(0))
