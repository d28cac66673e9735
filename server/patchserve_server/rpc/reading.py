"""Where gRPC messages are received: how many at a time, and in which time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from patchserve_server.contract.methods import InitialPermit, Method, RequestSize
from patchserve_server.rpc.calls import IncomingCall
from patchserve_server.rpc.parsing import MessageParser
from patchserve_server.rpc.receiving import Requests
from patchserve_server.serving.admission import NOTHING, ONE, Admission, Capacity, Permit
from patchserve_server.serving.reading_places import ReadingPlaces, places_of_one_client
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import WaitingCalls

OPEN_PROBES: Final = Capacity(256)
_OPEN_PROBES_SHARE: Final = 0.25
_SMALL_PLACES: Final = 4
_SMALL_KEEPS_S: Final = 0.25  # a small message comes with its call
_LARGE_KEEPS_S: Final = 2.0
_MAX_PROBE_QUEUE: Final = 64  # of one client


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Limits on messages that are received.

    Args:
        first_message_timeout_s: how long the first message of a call may take.
        max_calls: how many calls of one client may wait until they are read.
        large_places: how many messages with images are received at a time.
        shares_places: whether one client gets at most a third of the places, but 2 at least.
    """

    first_message_timeout_s: float
    max_calls: int
    large_places: int
    shares_places: bool


class Reading:
    """Where each call gets its reading place."""

    def __init__(self, limits: ReadingLimits, waiting: WaitingCalls) -> None:
        self._limits = limits
        self._waiting = waiting
        self._probe_places = self._places(_SMALL_PLACES, _SMALL_KEEPS_S, _MAX_PROBE_QUEUE)
        self._small_places = self._places(_SMALL_PLACES, _SMALL_KEEPS_S, limits.max_calls)
        self._large_places = self._places(limits.large_places, _LARGE_KEEPS_S, limits.max_calls)
        self._open_probes = Admission("open probe", OPEN_PROBES, share=_OPEN_PROBES_SHARE, largest=ONE)

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

    def _places(self, count: int, keeps_s: float, max_queue: int) -> ReadingPlaces:
        per_client = places_of_one_client(count, is_shared=self._limits.shares_places)
        return ReadingPlaces(self._waiting, count=count, per_client=per_client, keeps_s=keeps_s, max_queue=max_queue)
