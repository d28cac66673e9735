"""The ledger of one admission over all fronts of a machine."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from patchserve_server.fronts.ledger_memory import ROW, TOTALS, LedgerMemory
from patchserve_server.serving.capacity import NOTHING, Capacity
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.ledger import IsWithinShare, WaitingProcess

# The words of a row: what single calls and streams hold, then what waits.
_STREAMS: Final = 2
_WAITS, _FIRST, _ARRIVED, _SERVED = 4, 5, 7, 8
_NEAR: Final = 16  # slots in which a client is looked for; elsewhere only if they were full
_HASHES: Final = 1024
_WAITING_CLIENTS: Final = 4  # of the totals, after what calls and streams hold


class SharedLedger:
    """The part of one front in the ledger of an admission.

    A client is a slot, found by the hash of its name. Clients take turns as in FairQueue: the one that was served, or
    began to wait, longest ago is next, in whichever fronts its streams wait; of these, it is the turn of the front that
    was served longest ago.

    Args:
        memory: shared by all fronts.
        number: of the ledger.
        front: the number of this process.
        wake: lets another front look at what waits there.
    """

    is_shared = True

    def __init__(self, memory: LedgerMemory, number: int, front: int, wake: Callable[[int], None]) -> None:
        self._memory = memory
        self._words = memory.words
        self._number = number
        self._front, self._fronts = front, memory.fronts
        self._wake = wake
        self._keys_at = memory.keys_at(number)
        self._totals_at = [memory.totals_at(number, each) for each in range(memory.fronts)]
        self._slots: dict[str, int] = {}  # of clients that hold something here, or wait
        self._clients: dict[int, str] = {}  # the reverse
        self._hash: Callable[[str], int] = functools.lru_cache(_HASHES)(self._hash_of)

    @property
    def others_wait(self) -> bool:
        waiting = self._memory.numbers(self._totals_at[0], self._fronts * TOTALS)[_WAITING_CLIENTS::TOTALS]
        return sum(waiting) > waiting[self._front]

    def exclusive(self) -> AbstractContextManager[None]:
        return self._memory.lock

    def held(self, *, streams: bool) -> Capacity:
        return _sum(self._memory.numbers(self._totals_at[0], self._fronts * TOTALS), TOTALS, streams=streams)

    def held_by(self, client: str, *, streams: bool) -> Capacity:
        slot = self._find(client)
        return NOTHING if slot is None else _sum(self._rows(slot), ROW, streams=streams)

    def add(self, flow: FlowKey, change: Capacity) -> None:
        with self.exclusive():
            offset = _STREAMS if flow.is_stream else 0
            for at in (self._row(self._take(flow.client)), self._totals_at[self._front]):
                self._words[at + offset] += change.count
                self._words[at + offset + 1] += change.bytes
            self._drop_if_unused(flow.client)

    def set_waiting(self, client: str, capacity: Capacity | None) -> None:
        with self.exclusive():
            if capacity is None and client not in self._slots:
                return
            at = self._row(self._take(client))
            waited, waits = self._words[at + _WAITS], int(capacity is not None)
            if waits and not waited:
                self._words[at + _ARRIVED] = self._memory.next_turn()
            if capacity is not None:
                self._words[at + _FIRST], self._words[at + _FIRST + 1] = capacity.count, capacity.bytes
            self._words[at + _WAITS] = waits
            self._words[self._totals_at[self._front] + _WAITING_CLIENTS] += waits - waited
            self._drop_if_unused(client)

    def served(self, client: str) -> None:
        self._words[self._row(self._slots[client]) + _SERVED] = self._memory.next_turn()

    def first(self, is_within_share: IsWithinShare) -> WaitingProcess | None:
        for _, slot, fronts in sorted(self._waiting()):
            _, front = min(fronts)
            at = self._row(slot, front)
            capacity = Capacity(self._words[at + _FIRST], self._words[at + _FIRST + 1])
            held = (_sum(self._rows(slot), ROW, streams=streams) for streams in (True, False))
            if is_within_share(capacity, *held):
                return WaitingProcess(front, self._clients[slot] if front == self._front else None, capacity)
        return None

    def wake(self, process: WaitingProcess) -> None:
        self._wake(process.number)

    def _waiting(self) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Of each client that waits: its turn, its slot, and its fronts with the turn of each."""
        found = []
        for slot in range(self._memory.clients):
            if not self._words[self._keys_at + slot]:
                continue
            rows = [(front, self._row(slot, front)) for front in range(self._fronts)]
            waiting = [(front, at) for front, at in rows if self._words[at + _WAITS]]
            if waiting:
                served = max(self._words[at + _SERVED] for _, at in rows)
                turn = max(served, min(self._words[at + _ARRIVED] for _, at in waiting))
                fronts = [(max(self._words[at + _SERVED], self._words[at + _ARRIVED]), front) for front, at in waiting]
                found.append((turn, slot, fronts))
        return found

    def _rows(self, slot: int) -> list[int]:
        """The rows of all fronts for a client."""
        return self._memory.numbers(self._memory.row_at(self._number, 0, slot), self._fronts * ROW)

    def _row(self, slot: int, front: int | None = None) -> int:
        return self._memory.row_at(self._number, self._front if front is None else front, slot)

    def _find(self, client: str) -> int | None:
        """The slot of a client that any front knows."""
        if (slot := self._slots.get(client)) is not None:
            return slot
        key = self._hash(client)
        start = self._start(key)
        for first, keys in ((start, self._keys(start, _NEAR)), (0, self._strays())):
            if key in keys:
                return first + keys.index(key)
        return None

    def _strays(self) -> list[int]:
        return self._keys(0, self._memory.clients) if self._memory.has_strays else []

    def _take(self, client: str) -> int:
        """The slot of a client, which stays in use until its row is empty."""
        if (slot := self._slots.get(client)) is not None:
            return slot
        if (slot := self._find(client)) is None:
            slot = self._free_slot(self._hash(client))
            self._words[self._keys_at + slot] = self._hash(client)
        self._slots[client] = slot
        self._clients[slot] = client
        return slot

    def _start(self, key: int) -> int:
        """Where a client is looked for first."""
        return int(key % (self._memory.clients - _NEAR))

    def _free_slot(self, key: int) -> int:
        start = self._start(key)
        near = range(start, start + _NEAR)
        for slot in itertools.chain(near, range(self._memory.clients)):
            if not self._words[self._keys_at + slot] or self._is_empty(slot):  # the key of a front that was killed
                self._memory.has_strays = self._memory.has_strays or slot not in near
                return slot
        raise RuntimeError("Every client holds a place among all calls, and there are more clients than places.")

    def _drop_if_unused(self, client: str) -> None:
        slot = self._slots[client]
        at = self._row(slot)
        if any(self._words[at : at + _WAITS + 1]):
            return
        del self._slots[client], self._clients[slot]
        if self._is_empty(slot):
            self._words[self._keys_at + slot] = 0

    def _is_empty(self, slot: int) -> bool:
        rows = self._rows(slot)
        return not any(any(rows[word::ROW]) for word in range(_WAITS + 1))

    def _keys(self, first: int, count: int) -> list[int]:
        return self._memory.numbers(self._keys_at + first, count)

    def _hash_of(self, client: str) -> int:
        digest = hashlib.blake2b(client.encode(), digest_size=8, key=self._memory.hash_key).digest()
        return int.from_bytes(digest, "little", signed=True) or 1


def _sum(words: list[int], step: int, *, streams: bool) -> Capacity:
    """What all fronts hold: `words` has `step` words of each."""
    first = _STREAMS if streams else 0
    return Capacity(sum(words[first::step]), sum(words[first + 1 :: step]))
