"""Tries requests again until a deadline."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from patchserve_server.domain.errors import StorageUnavailableError

_Result = TypeVar("_Result")
_RETRY_AFTER_S = 2.0


class TransientError(Exception):
    """A request failed and may succeed when it is tried again. If it was a write, it may have been done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a request is tried. Waits double from the first to the longest one, each shortened by up to a half."""

    deadline_s: float = 10.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 2.0


class Retrying:
    """Tries requests again, until it is closed."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._closed = threading.Event()

    def close(self) -> None:
        """Ends all waits: what fails from now on is not tried again."""
        self._closed.set()

    def call(self, action: str, attempt: Callable[[bool], _Result], *, extra_s: float = 0.0) -> _Result:
        """The result of the first attempt that raises no TransientError.

        Args:
            action: what it does, such as "read".
            attempt: one request. It is told whether an earlier attempt may have been done.
            extra_s: time on top of the policy's, for large objects.

        Raises:
            StorageUnavailableError: it still failed when the time had passed.
        """
        end = time.monotonic() + self._policy.deadline_s + extra_s
        for number in count():
            try:
                return attempt(number > 0)
            except TransientError as error:
                longest = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2 ** min(number, 10))
                wait_s = random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, hides nothing
                if time.monotonic() + wait_s >= end or self._closed.wait(wait_s):
                    raise unavailable(action, error.reason) from None
        raise AssertionError  # count() has no end


def unavailable(action: str, reason: str, *, is_absent: bool = False) -> StorageUnavailableError:
    """The error for callers. It is raised `from None`: the cause's text may contain a signed URL.

    `is_absent`: there is no such bucket.
    """
    message = f"The object store cannot be {action}: {reason}."
    return StorageUnavailableError(message, retry_after_s=_RETRY_AFTER_S, is_absent=is_absent)
