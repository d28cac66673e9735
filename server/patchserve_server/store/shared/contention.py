"""How long to wait before a swap is tried again that somebody else was faster with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.store.shared.surroundings import Surroundings

_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 1.0
_GIVE_UP_S: Final = 30.0


def attempts(surroundings: Surroundings, what: str) -> Iterator[int]:
    """The numbers of attempts, with longer and longer random waits between them.

    Raises:
        StorageUnavailableError: others were faster for half a minute.
    """
    ends_at_s = surroundings.monotonic_s() + _GIVE_UP_S
    number, wait_s = 0, _FIRST_WAIT_S
    while True:
        yield number
        number += 1
        if surroundings.monotonic_s() > ends_at_s:
            message = f"Too many servers change {what} of the store at the same time. Try again later."
            raise StorageUnavailableError(message, retry_after_s=1.0)
        surroundings.sleep(surroundings.rng.uniform(0, wait_s))
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
