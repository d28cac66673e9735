"""The log of failed calls does not depend on how many fail."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fakes.waiting import until

from patchserve_server.domain.call_events import CALL_LOG
from patchserve_server.serving import failure_log
from patchserve_server.serving.failure_log import LINES, MAX_KINDS, FailureLog


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


async def test_the_first_failures_are_logged_and_the_others_summed_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_log, "INTERVAL_S", 0.05)
    caplog.set_level(logging.INFO)
    log = FailureLog()
    for number in range(1000):
        log.add("NO_CREDENTIALS", "peer ipv4:10.0.0.1", f"call {number}")
    log.add("NO_CREDENTIALS", "peer ipv4:10.0.0.2", "another caller")
    log.add("INVALID_FIELD", "peer ipv4:10.0.0.1", "another reason")
    await until(lambda: "more calls" in caplog.text)
    assert messages(caplog) == [
        *(f"call {number}" for number in range(LINES)),
        "another caller",
        "another reason",
        f"NO_CREDENTIALS: {1000 - LINES} more calls of peer ipv4:10.0.0.1 failed in 0 s",
    ]
    log.add("NO_CREDENTIALS", "peer ipv4:10.0.0.1", "later")
    assert messages(caplog)[-1] == "later"


async def test_many_callers_are_not_told_apart(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_log, "INTERVAL_S", 0.05)
    caplog.set_level(logging.INFO)
    log = FailureLog()
    for number in range(1000):
        log.add("NO_CREDENTIALS", f"peer ipv4:{number}", "line")
    assert len(messages(caplog)) == MAX_KINDS + LINES
    await until(lambda: "more calls" in caplog.text)
    assert messages(caplog)[-1].startswith(f"NO_CREDENTIALS: {1000 - MAX_KINDS - LINES} more calls of other callers")


async def test_at_level_debug_every_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, CALL_LOG)
    log = FailureLog()
    for _ in range(100):
        log.add("NO_CREDENTIALS", "peer ipv4:10.0.0.1", "line")
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["line"] * 100
