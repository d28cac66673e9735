"""Settings that are read again: who hears of it, and what is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from fakes.waiting import until

from patchserve_server.bootstrap.live_settings import LiveSettings, SettingsReloader
from patchserve_server.bootstrap.process import set_log_level
from patchserve_server.config import ConfigurationError, Problem, Settings


@pytest.fixture(autouse=True)
def same_log_level() -> Iterator[None]:
    logger = logging.getLogger("patchserve_server")
    level = logger.level
    yield
    logger.setLevel(level)


class Reload:
    """Settings that a test changes, and a reloader that runs."""

    def __init__(self) -> None:
        self.read: Settings | Exception = Settings()
        self.live = LiveSettings(Settings())
        self.heard: list[Settings] = []
        self.live.on_change(set_log_level)
        self.live.on_change(self.heard.append)
        self.reloader = SettingsReloader(self.live, self._read_again)

    def _read_again(self) -> Settings:
        if isinstance(self.read, Exception):
            raise self.read
        return self.read


async def reload(reload: Reload, read: Settings | Exception, caplog: pytest.LogCaptureFixture) -> str:
    """Reads these settings; returns the line of the log."""
    caplog.clear()
    reload.read = read
    running = asyncio.create_task(reload.reloader.run())
    reload.reloader.request()
    await until(lambda: bool(caplog.messages) and not reload.reloader._requested.is_set())
    assert not running.done(), "it waits for the next request"
    running.cancel()
    (message,) = caplog.messages
    return message


async def test_every_listener_hears_the_settings_that_may_change(caplog: pytest.LogCaptureFixture) -> None:
    test = Reload()
    set_log_level(Settings())
    message = await reload(test, Settings(max_in_flight=5, port=1), caplog)
    assert message == (
        "Settings read again: max_in_flight is 5 (was 64). Only a restart changes port (is 50051, would be 1)"
    )
    assert test.heard == [Settings(max_in_flight=5)]
    assert test.live.now == Settings(max_in_flight=5)
    assert await reload(test, Settings(max_in_flight=5), caplog) == "Settings read again: nothing has changed"


async def test_after_a_fault_nobody_hears_of_anything(caplog: pytest.LogCaptureFixture) -> None:
    test = Reload()
    fault = ConfigurationError([Problem("port is 'x'", "port", "a.toml", 3), Problem("--threads is '0'")])
    message = await reload(test, fault, caplog)
    assert message.endswith("stay as they are: a.toml, line 3: port is 'x'; --threads is '0'")
    assert not test.heard
    assert test.live.now == Settings()


async def test_a_bug_is_logged_and_the_next_request_is_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    test = Reload()
    assert "cannot be read again" in await reload(test, RuntimeError("a bug"), caplog)
    assert test.live.now == Settings()
    assert "max_in_flight is 5" in await reload(test, Settings(max_in_flight=5), caplog)


async def test_a_change_of_the_log_level_is_logged_in_either_direction(caplog: pytest.LogCaptureFixture) -> None:
    test = Reload()
    set_log_level(Settings())
    assert 'log_level is "error" (was "info")' in await reload(test, Settings(log_level="error"), caplog)
    assert logging.getLogger("patchserve_server").level == logging.ERROR
    assert 'log_level is "debug" (was "error")' in await reload(test, Settings(log_level="debug"), caplog)


async def test_after_a_bug_the_next_request_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    test = Reload()
    running = asyncio.create_task(test.reloader.run())
    test.read = RuntimeError("a bug")
    test.reloader.request()
    await until(lambda: any("cannot be read again" in message for message in caplog.messages))
    test.read = Settings(max_in_flight=5)
    test.reloader.request()
    await until(lambda: bool(test.heard))
    running.cancel()
    assert test.live.now.max_in_flight == 5
