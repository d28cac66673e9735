"""Sends messages to a receiver in a thread of its own, so that an inspection never waits for it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from patchserve_client._counted import counted
from patchserve_client.cli._outbox import Message, Outbox
from patchserve_client.cli._sources import Tell

END_TIMEOUT_S = 10.0  # how long the end waits for what is left
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 10.0


class DeliveryError(Exception):
    """A message was not taken.

    `is_final`: trying the same message again cannot succeed. `retry_after_s`: what the receiver asks for.
    """

    def __init__(self, message: str, *, is_final: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_final, self.retry_after_s = is_final, retry_after_s


class Receiver(Protocol):
    """Where messages go. One thread sends."""

    kind: str  # "webhook" or "mqtt", for what is told
    address: str  # for messages: without secrets

    def send(self, message: Message) -> None:
        """Send one message; return when the receiver has it, or will surely be given it by `flush`.

        Raises:
            DeliveryError: it was not taken.
        """

    def flush(self, timeout_s: float) -> int:
        """Wait for the rest of what was sent. Returns how many messages the receiver has not confirmed."""

    def close(self) -> None:
        """Close the connection, also while another thread sends."""


class Delivery:
    """Messages to one receiver: retried with growing pauses, in bounded memory.

    Args:
        receiver: gets the messages.
        tell: says once that the receiver is away, and once that it is back.
        jitter: multiplies each pause.
    """

    def __init__(
        self,
        receiver: Receiver,
        tell: Tell,
        *,
        outbox: Outbox | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),  # noqa: S311 - not for secrets
    ) -> None:
        self._receiver, self._tell = receiver, tell
        self._outbox = Outbox() if outbox is None else outbox
        self._jitter = jitter
        self._given_up = threading.Event()
        self._rejected_count = 0  # of these, the sending thread is the only writer
        self._is_away = False
        self._thread = threading.Thread(target=self._send_all, name=f"patchserve-{receiver.kind}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Deliver what is left, for a while; after an error, not at all.

        Raises:
            OSError: messages were not delivered, and nothing else failed.
        """
        deadline_s = time.monotonic() + (0.0 if error else END_TIMEOUT_S)
        self._outbox.close()
        try:
            self._thread.join(max(0.0, deadline_s - time.monotonic()))
            unconfirmed = self._receiver.flush(max(0.0, deadline_s - time.monotonic()))
            self._given_up.set()
            left = self._outbox.clear() + int(self._thread.is_alive()) + unconfirmed  # one may be in the thread's hands
        finally:
            self._given_up.set()
            self._receiver.close()
        lost = {
            "rejected": self._rejected_count,
            "dropped for newer ones": self._outbox.dropped_count,
            "not delivered at the end": left,
        }
        if any(lost.values()) and error is None:
            text = ", ".join(f"{count} {what}" for what, count in lost.items() if count)
            raise OSError(f"{counted(sum(lost.values()), 'message')} did not reach {self._receiver.address}: {text}.")

    def add(self, message: Message) -> None:
        """Send a message, some time. Returns at once."""
        self._outbox.add(message)

    def _send_all(self) -> None:
        while (message := self._outbox.take()) is not None:
            delay_s = _FIRST_DELAY_S
            while (pause_s := self._try_to_send(message)) is not None:
                if self._given_up.wait(max(pause_s, delay_s * self._jitter())):
                    return
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _try_to_send(self, message: Message) -> float | None:
        """Seconds to wait at least before the next try; None: there is none."""
        try:
            self._receiver.send(message)
        except DeliveryError as error:
            if error.is_final:
                self._rejected_count += 1
                if self._rejected_count == 1:
                    self._say(f"{self._receiver.address} rejects messages: {error}")
                return None
            if not self._is_away:
                self._is_away = True
                self._say(f"{self._receiver.address}: {error} Trying again.")
            return min(error.retry_after_s or 0.0, _LONGEST_DELAY_S)
        if self._is_away:
            self._is_away = False
            self._say(f"{self._receiver.address} takes messages again.")
        return None

    def _say(self, text: str) -> None:
        if not self._given_up.is_set():  # the summary is the last line
            self._tell(self._receiver.kind, text)
