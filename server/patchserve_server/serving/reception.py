"""The reception: gives calls what they need before they are read, and takes it from calls that send nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from patchserve_server.domain.errors import DrainingError, IdleCallError, QueueFullError
from patchserve_server.serving.admission import ONE, Admission, Capacity, Permit
from patchserve_server.serving.application import Application
from patchserve_server.serving.waiting_calls import WaitingCalls

IDLE_AFTER_S: Final = 10.0  # a call that sends nothing for so long is idle

_NEEDED: Final = "No message came for a while, and another call needed the place. Call again when there is one to send."

Keeps = Mapping[object, float]  # what a call holds, and for how long it keeps it while it waits (Waiting.keeps_s)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a call holds while it waits for its caller.

    Args:
        client: who makes the call.
        keeps_first_s: while it waits for its first message.
        keeps_s: while it waits for a later one.
        give_back: gives all of it back.
    """

    client: str
    keeps_first_s: Keeps
    keeps_s: Keeps
    give_back: Callable[[], None]


class Reception:
    """Where the calls of all faces get their permits.

    Args:
        max_idle_streams: how many streams of one client may send nothing for a while.
    """

    def __init__(self, max_idle_streams: int) -> None:
        self._max_idle_streams = max_idle_streams
        self.waiting = WaitingCalls()
        self._sweep: asyncio.TimerHandle | None = None

    @contextmanager
    def admitted(
        self, application: Application, client: str, *, is_load: bool, until_answered: ExitStack
    ) -> Iterator[tuple[Permit, Holdings]]:
        """The permit for the images of a call, empty at first, and all that the call holds.

        Args:
            application: whose capacity it is.
            client: who makes the call.
            is_load: whether the call needs a permit for a load.
            until_answered: keeps the call's place among all calls; the caller of this function closes it.

        Raises:
            QueueFullError: there is no capacity for one more call or load.
        """
        calls, loads = application.calls, application.loads
        until_answered.enter_context(self._acquire(calls, client))
        with ExitStack() as permits:
            keeps_first_s: dict[object, float] = {calls: IDLE_AFTER_S}
            if is_load:
                permits.enter_context(self._acquire(loads, client))
                keeps_first_s[loads] = IDLE_AFTER_S
            images = application.images
            permit = permits.enter_context(images.permit(client, partial(self._end_overdue, images, client)))

            def give_back() -> None:
                permits.close()
                until_answered.close()

            self._sweep_later(calls)
            yield permit, Holdings(client, keeps_first_s, dict.fromkeys(keeps_first_s, IDLE_AFTER_S), give_back)

    def drain(self) -> None:
        """Ends calls that have sent nothing, with DrainingError, so that a server that stops does not wait for them."""
        self.waiting.end_first(DrainingError())

    def _acquire(self, admission: Admission, client: str) -> Permit:
        """A permit for one. If there is none, one is taken from a call whose caller sends nothing."""
        try:
            return admission.acquire(client, ONE)
        except QueueFullError:
            ended = self._end_overdue(admission, client, ONE)
            if not ended and admission.is_within_share(client, ONE):
                ended = self.waiting.end_greediest(admission, IdleCallError(_NEEDED), client)
            if not ended:
                raise
        return admission.acquire(client, ONE)

    def _end_overdue(self, admission: Admission, client: str, more: Capacity) -> bool:
        """Ends a call that holds a part of what the client needs, and whose caller sends nothing."""
        # If the client has used up its share, no other client loses a call.
        of_client = None if admission.is_within_share(client, more) else client
        return self.waiting.end_overdue(admission, IdleCallError(_NEEDED), of_client)

    def _sweep_later(self, calls: Admission) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_AFTER_S, self._end_idle_streams, calls)

    def _end_idle_streams(self, calls: Admission) -> None:
        limit = self._max_idle_streams
        message = f"This client has {limit} other streams that send nothing. Open a stream when there is a frame."
        self.waiting.end_excess(calls, IdleCallError(message), limit)
        self._sweep = None
        if self.waiting:
            self._sweep_later(calls)
