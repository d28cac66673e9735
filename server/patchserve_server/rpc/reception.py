"""The reception: gives calls what they need before they are read, and takes it from calls that send nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from patchserve_server.domain.errors import DrainingError, IdleCallError, QueueFullError
from patchserve_server.rpc.calls import Call, IncomingCall
from patchserve_server.rpc.methods import InitialPermit, Method, RequestSize
from patchserve_server.rpc.parsing import MessageParser
from patchserve_server.rpc.receiving import Holdings, Requests
from patchserve_server.serving.admission import NOTHING, ONE, Admission, Capacity, Permit
from patchserve_server.serving.application import Application
from patchserve_server.serving.reading_places import ReadingPlaces
from patchserve_server.serving.waiting_calls import WaitingCalls

IDLE_AFTER_S: Final = 10.0  # a call that sends nothing for so long is idle
OPEN_PROBES: Final = Capacity(256)
_OPEN_PROBES_SHARE: Final = 0.25
_SMALL_PLACES: Final = 4
_SMALL_KEEPS_S: Final = 0.25  # a small message comes with its call
_LARGE_KEEPS_S: Final = 2.0
_MAX_PROBE_QUEUE: Final = 64  # of one client

_NEEDED: Final = "No message came for a while, and another call needed the place. Call again when there is one to send."


@dataclass(frozen=True, slots=True)
class ReceptionLimits:
    """Limits on calls that wait for a message.

    Args:
        first_message_timeout_s: how long the first message of a call may take.
        max_idle_streams: how many streams of one client may send nothing for a while.
        max_calls: how many calls of one client may wait until they are read.
        large_places: how many messages with images are received at a time.
        shares_places: whether one client gets at most a third of the places.
    """

    first_message_timeout_s: float
    max_idle_streams: int
    max_calls: int
    large_places: int
    shares_places: bool


class Reception:
    """Where each call gets its permits and its reading places."""

    def __init__(self, limits: ReceptionLimits) -> None:
        self._limits = limits
        self._waiting = WaitingCalls()
        self._probe_places = self._places(_SMALL_PLACES, _SMALL_KEEPS_S, _MAX_PROBE_QUEUE)
        self._small_places = self._places(_SMALL_PLACES, _SMALL_KEEPS_S, limits.max_calls)
        self._large_places = self._places(limits.large_places, _LARGE_KEEPS_S, limits.max_calls)
        self._open_probes = Admission("open probe", OPEN_PROBES, share=_OPEN_PROBES_SHARE, largest=ONE)
        self._sweep: asyncio.TimerHandle | None = None

    @contextmanager
    def probe(
        self, method: Method, parser: MessageParser, incoming: IncomingCall, received: AsyncIterator[Any]
    ) -> Iterator[Requests]:
        """The messages of a probe. They must come one soon after the other.

        Raises:
            QueueFullError: there are too many probes that stay open.
        """
        with ExitStack() as holds:
            if method.stays_open:
                holds.enter_context(self._open_probes.acquire(incoming.client, ONE))
            timeout_s = self._limits.first_message_timeout_s
            holdings = Holdings(incoming.client, {}, {}, holds.close)
            yield Requests(
                received,
                parser,
                waiting_calls=self._waiting,
                places=self._probe_places,
                first_timeout_s=timeout_s,
                next_timeout_s=timeout_s,
                holdings=holdings,
            )

    @contextmanager
    def admitted(
        self,
        application: Application,
        method: Method,
        incoming: IncomingCall,
    ) -> Iterator[tuple[Call, Holdings]]:
        """The admitted call with its permits.

        Raises:
            QueueFullError: there is no capacity for one more call or load.
        """
        client, calls, loads = incoming.client, application.calls, application.loads
        until_status_is_sent = incoming.until_status_is_sent
        until_status_is_sent.enter_context(self._acquire(calls, client))
        with ExitStack() as permits:
            keeps_first_s: dict[object, float] = {calls: IDLE_AFTER_S}
            if method.initial_permit is InitialPermit.LOAD:
                permits.enter_context(self._acquire(loads, client))
                keeps_first_s[loads] = IDLE_AFTER_S
            permit = permits.enter_context(application.images.permit(client))

            def give_back() -> None:
                permits.close()
                until_status_is_sent.close()

            self._sweep_later(calls)
            call = Call(incoming.request_id, client, incoming.context, application, permit)
            yield call, Holdings(client, keeps_first_s, dict.fromkeys(keeps_first_s, IDLE_AFTER_S), give_back)

    def requests(
        self,
        method: Method,
        parser: MessageParser,
        received: AsyncIterator[Any],
        holdings: Holdings,
        permit: Permit | None,
    ) -> Requests:
        """The messages of an admitted call; `permit` grows with a single one."""
        return Requests(
            received,
            parser,
            waiting_calls=self._waiting,
            places=self._large_places if method.request_size is RequestSize.LARGE else self._small_places,
            first_timeout_s=self._limits.first_message_timeout_s,
            next_timeout_s=None,
            holdings=holdings,
            permit=permit,
            initial=ONE if method.initial_permit is InitialPermit.IMAGE else NOTHING,
        )

    def drain(self) -> None:
        """Ends calls that have sent nothing, so that a server that stops does not wait for them."""
        self._waiting.end_first(DrainingError())

    def _places(self, count: int, keeps_s: float, max_queue: int) -> ReadingPlaces:
        per_client = max(2, count // 3) if self._limits.shares_places else count
        return ReadingPlaces(self._waiting, count=count, per_client=per_client, keeps_s=keeps_s, max_queue=max_queue)

    def _acquire(self, admission: Admission, client: str) -> Permit:
        """A permit for one. If there is none, one is taken from a call whose caller sends nothing."""
        try:
            return admission.acquire(client, ONE)
        except QueueFullError:
            error = IdleCallError(_NEEDED)
            if not admission.is_within_share(client, ONE):  # then no other client's permit helps
                ended = self._waiting.end_overdue(admission, error, client)
            else:
                ended = self._waiting.end_overdue(admission, error)
                ended = ended or self._waiting.end_greediest(admission, error, client)
            if not ended:
                raise
        return admission.acquire(client, ONE)

    def _sweep_later(self, calls: Admission) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_AFTER_S, self._end_idle_streams, calls)

    def _end_idle_streams(self, calls: Admission) -> None:
        limit = self._limits.max_idle_streams
        message = f"This client has {limit} other streams that send nothing. Open a stream when there is a frame."
        self._waiting.end_excess(calls, IdleCallError(message), limit)
        self._sweep = None
        if self._waiting:
            self._sweep_later(calls)
