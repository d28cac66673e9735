"""Keeps what is known of a shared store in step with it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.serving.shared_store_view import SharedStoreView, Sharing

POLL_INTERVAL_S: Final = 2.0
JITTER: Final = 0.15  # of the interval, at most; added, so that a server never asks more often
_MAINTENANCE_INTERVAL_S: Final = 60.0

_log = logging.getLogger(__name__)


class StoreSync:
    """Polls a shared store, and lets it do what is due.

    Args:
        sharing: the store.
        view: learns what has changed.
        maintaining: a thread that does what is due.
        interval_s: from the end of a poll to the next one, in seconds; a random time is added.
        random_share: returns a number from 0 to 1.
    """

    def __init__(
        self,
        sharing: Sharing,
        view: SharedStoreView,
        maintaining: Executor,
        *,
        interval_s: float = POLL_INTERVAL_S,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self._url = sharing.url
        self._shared = sharing.references
        self._view = view
        self._maintaining = maintaining
        self._interval_s = interval_s
        self._random_share = random_share
        self._lost_at_s: float | None = None  # None: the last poll succeeded

    async def run(self) -> None:
        """Polls until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._maintain())
            while True:
                await asyncio.sleep(self._pause_s(self._interval_s))
                await self._poll()

    async def _poll(self) -> None:
        try:
            await self._view.poll()
        except PatchserveError as error:
            self._lost(error)
        except Exception:  # noqa: BLE001 - a bug; the next poll may get further
            _log.exception("The store %s cannot be polled", self._url)
        else:
            self._reached()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s(_MAINTENANCE_INTERVAL_S))
            try:
                await asyncio.get_running_loop().run_in_executor(self._maintaining, self._shared.maintain)
            except PatchserveError as error:
                _log.info("The store %s could not be maintained, which is tried again: %s", self._url, error.message)
            except Exception:  # noqa: BLE001 - a bug; polls go on
                _log.exception("The store %s cannot be maintained", self._url)

    def _pause_s(self, interval_s: float) -> float:
        return interval_s * (1 + JITTER * self._random_share())

    def _lost(self, error: PatchserveError) -> None:
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()
            _log.warning(
                "The store %s cannot be reached: %s What is held here is served; until the store is back, references "
                "cannot be changed",
                self._url,
                error.message,
            )

    def _reached(self) -> None:
        if self._lost_at_s is not None:
            _log.info("The store %s is reached again, after %.0f s", self._url, time.monotonic() - self._lost_at_s)
            self._lost_at_s = None
