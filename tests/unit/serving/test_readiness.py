"""Readiness: starting, serving and draining."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from patchserve_server.domain.errors import NotReadyError
from patchserve_server.serving.application import Application
from patchserve_server.serving.readiness import Readiness


class FakeApplication:
    """Counts the drains of its streams."""

    def __init__(self) -> None:
        self.drains = 0
        self.streams = self

    def drain(self) -> None:
        self.drains += 1


def application() -> tuple[FakeApplication, Application]:
    fake = FakeApplication()
    return fake, cast("Any", fake)


def test_a_starting_server_has_no_application() -> None:
    readiness = Readiness()
    assert not readiness.is_serving
    with pytest.raises(NotReadyError, match="starting") as caught:
        _ = readiness.application
    assert caught.value.retry_after_s


async def test_during_a_drain_calls_are_accepted_and_streams_end_after_the_delay() -> None:
    fake, app = application()
    readiness = Readiness()
    readiness.serve(app)
    assert readiness.is_serving
    streams_end = asyncio.create_task(readiness.streams_end())
    readiness.begin_drain()
    ending = asyncio.create_task(readiness.end_streams(delay_s=3600))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not readiness.is_serving
    assert readiness.application is app
    assert not streams_end.done()
    assert fake.drains == 0
    ending.cancel()
    await readiness.end_streams(delay_s=0)
    await asyncio.wait_for(streams_end, 10)
    assert fake.drains == 1


async def test_a_drain_of_a_starting_server_does_not_wait() -> None:
    readiness = Readiness()
    readiness.begin_drain()
    await asyncio.wait_for(readiness.end_streams(delay_s=3600), 10)
    assert not readiness.is_serving
    with pytest.raises(NotReadyError):
        _ = readiness.application
