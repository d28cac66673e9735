"""The fronts that are connected to an engine, and what they know of its references."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from patchserve_server.domain.drift import Drift
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.errors import error_to_json
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.link import Link
from patchserve_server.fronts.remote_drift import drift_message
from patchserve_server.fronts.values import body_of
from patchserve_server.serving.known_references import Known, KnownReferences

_ACKNOWLEDGE_S: Final = 5.0

_log = logging.getLogger(__name__)


class ConnectedFronts:
    """All links to fronts. `known` is for the catalog: every change of it is told to all of them."""

    def __init__(self) -> None:
        self._links: dict[Link, bool] = {}  # and whether it shows the wall
        self._none = asyncio.Event()
        self._none.set()
        self.known = KnownReferences(self._tell_known)

    def add(self, link: Link, *, shows_wall: bool) -> None:
        """Counts a front from now on, and tells it all that is known."""
        for known in self.known:
            link.tell(*_known_message(*known, is_news=False))
        self._links[link] = shows_wall
        self._none.clear()

    def discard(self, link: Link) -> None:
        self._links.pop(link, None)
        if not self._links:
            self._none.set()

    async def all_gone(self) -> None:
        """Returns when no front is connected."""
        await self._none.wait()

    def tell_drift(self, reference_id: ReferenceId, revision: Revision, drift: Drift) -> None:
        """Tells all fronts what a comparison of scores says."""
        message = drift_message(reference_id, revision, drift)
        for link in self._links:
            link.tell(*message)

    def tell_wall(self, event: Head, body: Body) -> None:
        """Passes on what happened in another front to the one that shows the wall."""
        for link, shows_wall in self._links.items():
            if shows_wall:
                link.tell(event, body)

    def _tell_known(self, reference_id: ReferenceId, known: Known, is_news: bool) -> None:
        message = _known_message(reference_id, known, is_news=is_news)
        for link in self._links:
            link.tell(*message)

    async def everybody_knows(self) -> None:
        """Returns when every front knows of every change. One that does not answer is disconnected."""
        await asyncio.gather(*map(self._acknowledged, list(self._links)))

    async def _acknowledged(self, link: Link) -> None:
        try:
            async with asyncio.timeout(_ACKNOWLEDGE_S):
                await link.ask({"do": "acknowledge"})
        except TimeoutError:
            _log.error("A front does not answer for %g s, so its connection is closed", _ACKNOWLEDGE_S)
            link.close()
        except Exception:  # noqa: BLE001 - it has gone, and will learn everything when it is back
            _log.debug("A front left before it had acknowledged a change")


def _known_message(reference_id: ReferenceId, known: Known, *, is_news: bool) -> tuple[Head, Body]:
    head: Head = {"tell": "known", "id": reference_id, "is_news": is_news}
    if isinstance(known, ReferenceInfo):
        return head, body_of(known)
    return head | {"error": None if known is None else error_to_json(known)}, b""
