"""The settings of a running server: some of them change when they are read again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from patchserve_server.config import ConfigurationError, Settings
from patchserve_server.config.changes import Changes

_log = logging.getLogger(__name__)


class LiveSettings:
    """The settings as they are now, and who hears of a change. `now`: those at the start."""

    def __init__(self, now: Settings) -> None:
        self.now = now
        self._listeners: list[Callable[[Settings], None]] = []

    def on_change(self, listener: Callable[[Settings], None]) -> None:
        """Calls `listener` with all settings after every change."""
        self._listeners.append(listener)

    def change(self, settings: Settings) -> None:
        """Has these settings from now on."""
        self.now = settings
        for listener in self._listeners:
            listener(settings)


class SettingsReloader:
    """Reads the settings again when it is asked to.

    Args:
        live: gets what may change at run time.
        read_again: reads flags, environment and file; it blocks. Raises a ConfigurationError.
    """

    def __init__(self, live: LiveSettings, read_again: Callable[[], Settings]) -> None:
        self._live = live
        self._read_again = read_again
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Reads the settings again, soon."""
        self._requested.set()

    async def run(self) -> None:
        """Reads whenever it is requested, until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                await self._reload()
            except Exception:  # noqa: BLE001 - a bug: else nothing would be read again for good, without a word
                _log.exception("The settings cannot be read again, or not all of the server has them")

    async def _reload(self) -> None:
        """Applies what may change at run time, and logs what is different. After a fault, all stays as it is."""
        try:
            read = await asyncio.to_thread(self._read_again)
        except ConfigurationError as error:
            _log.error("The settings cannot be read again, and stay as they are: %s", error)
            return
        changes = Changes(self._live.now, read)
        is_heard = _log.isEnabledFor(logging.INFO)  # the log level may be what changes
        if is_heard:
            _log.info("Settings read again: %s", changes)
        self._live.change(changes.result)
        if not is_heard:
            _log.info("Settings read again: %s", changes)
