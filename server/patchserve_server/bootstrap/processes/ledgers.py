"""The ledgers that the fronts share."""

from __future__ import annotations

from typing import Final

from patchserve_server.config import Settings
from patchserve_server.fronts.ledger_memory import LedgerMemory

_LEDGERS: Final = 3  # of calls, images and loads
_SPARE: Final = 64


def open_ledgers(file: int, fronts: int, settings: Settings) -> LedgerMemory:
    """An opening of the ledgers. Whoever holds something, or waits, has a call: so clients are no more than calls."""
    return LedgerMemory(file, ledgers=_LEDGERS, fronts=fronts, clients=2 * settings.max_calls + _SPARE)
