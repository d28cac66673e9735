"""Messages that wait for their receiver, in bounded memory: if it is away, the oldest are dropped."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Condition
from typing import Final

MAX_MESSAGES: Final = 1000
MAX_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Message:
    """What a receiver gets. Trying again does not change the id, so that a receiver can tell repeated ones."""

    message_id: str
    body: bytes  # JSON


class Outbox:
    """One thread adds messages and never waits; another one takes them, in their order."""

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._dropped_count = 0
        self._is_closed = False
        self._changed = Condition()

    @property
    def dropped_count(self) -> int:
        """How many messages were given up for newer ones."""
        with self._changed:
            return self._dropped_count

    def __len__(self) -> int:
        with self._changed:
            return len(self._messages)

    def add(self, message: Message) -> None:
        """Append a message; drop the oldest ones if there is no room."""
        with self._changed:
            self._messages.append(message)
            self._bytes += len(message.body)
            while len(self._messages) > self._max_messages or self._bytes > self._max_bytes:
                self._bytes -= len(self._messages.popleft().body)
                self._dropped_count += 1
            self._changed.notify_all()

    def take(self) -> Message | None:
        """The oldest message; waits for one. None: the outbox is closed, and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._is_closed)
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._bytes -= len(message.body)
            return message

    def close(self) -> None:
        """No more messages follow."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def clear(self) -> int:
        """Give up what waits. Returns how many."""
        with self._changed:
            count = len(self._messages)
            self._messages.clear()
            self._bytes = 0
            return count
