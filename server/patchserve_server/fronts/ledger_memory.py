"""The memory of the ledgers that all fronts of a machine share: counts of 64 bits, behind one lock.

A front writes its own rows only. So clearing the rows of a front that was killed, at whatever moment, gives back what
it held.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from typing import Final

ROW: Final = 9  # what one front holds for one client, and what waits there; see SharedLedger
TOTALS: Final = 5  # of one front
_WORD_BYTES: Final = 8
_KEY_WORDS: Final = 2  # the secret with which names of clients are hashed
_TURN, _STRAYS = _KEY_WORDS, _KEY_WORDS + 1
_HEADER: Final = _KEY_WORDS + 2


class FileLock:
    """The lock of an open file, between processes. It may be taken again inside. The system frees that of a killed one.

    Args:
        file: an opening of this process alone.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._depth = 0

    def __enter__(self) -> None:
        if not self._depth:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class LedgerMemory:
    """Ledgers of equal size, by number.

    Args:
        file: an open file, such as that of `create`. Each process needs its own opening of it, because locks belong to
            openings.
        ledgers: how many.
        fronts: how many may have a part in them.
        clients: how many may hold something, or wait, at a time.
    """

    def __init__(self, file: int, *, ledgers: int, fronts: int, clients: int) -> None:
        self.ledgers, self.fronts, self.clients = ledgers, fronts, clients
        self._file = os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        self._words_per_ledger = clients + fronts * TOTALS + clients * fronts * ROW
        nbytes = _WORD_BYTES * (_HEADER + ledgers * self._words_per_ledger)
        if os.fstat(self._file).st_size == 0:
            os.ftruncate(self._file, nbytes)
            os.pwrite(self._file, secrets.token_bytes(_WORD_BYTES * _KEY_WORDS), 0)
        self._memory = mmap.mmap(self._file, nbytes)
        self.words = memoryview(self._memory).cast("q")
        self.hash_key = bytes(self._memory[: _WORD_BYTES * _KEY_WORDS])
        self.lock = FileLock(self._file)

    @staticmethod
    def create() -> int:
        """The file of new memory. It has no name, and is gone with its last process."""
        return os.memfd_create("patchserve-ledgers", os.MFD_CLOEXEC)

    def next_turn(self) -> int:
        """A number that is greater than all before it."""
        self.words[_TURN] += 1
        return self.words[_TURN]

    @property
    def has_strays(self) -> bool:
        """Whether a client may be in a slot where it is not looked for first."""
        return bool(self.words[_STRAYS])

    @has_strays.setter
    def has_strays(self, has_strays: bool) -> None:
        self.words[_STRAYS] = has_strays

    def keys_at(self, ledger: int) -> int:
        """Where the hashes of the clients of a ledger begin; 0: free."""
        return _HEADER + ledger * self._words_per_ledger

    def totals_at(self, ledger: int, front: int) -> int:
        """Where the totals of a front begin."""
        return self.keys_at(ledger) + self.clients + front * TOTALS

    def row_at(self, ledger: int, front: int, client: int) -> int:
        """Where the row of a front for a client begins."""
        return self.totals_at(ledger, self.fronts) + (client * self.fronts + front) * ROW

    def numbers(self, at: int, count: int) -> list[int]:
        """These words."""
        return list(self.words[at : at + count])

    def clear(self, ledger: int, front: int) -> None:
        """Gives back everything that a front held."""
        with self.lock:
            for client in range(self.clients):
                at = self.row_at(ledger, front, client)
                self.words[at : at + ROW] = _zeros(ROW)
            at = self.totals_at(ledger, front)
            self.words[at : at + TOTALS] = _zeros(TOTALS)

    def close(self) -> None:
        self.words.release()
        self._memory.close()
        os.close(self._file)


def _zeros(count: int) -> memoryview:
    return memoryview(bytes(_WORD_BYTES * count)).cast("q")
