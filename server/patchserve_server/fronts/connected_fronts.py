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
from patchserve_server.serving.known_references import Known, KnownReferences
from patchserve_server.serving.values import body_of

_ACKNOWLEDGE_S: Final = 5.0
_ANSWER_S: Final = 2.0

_log = logging.getLogger(__name__)


class ConnectedFronts:
    """All links to fronts. `known` is for the catalog: every change of it is told to all of them."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._none = asyncio.Event()
        self._none.set()
        self.known = KnownReferences(self._tell_known)

    def add(self, link: Link) -> None:
        """Counts a front from now on, and tells it all that is known."""
        for known in self.known:
            link.tell(*_known_message(*known, is_news=False))
        self._links.add(link)
        self._none.clear()

    def discard(self, link: Link) -> None:
        self._links.discard(link)
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

    def tell_others(self, sender: Link, message: Head, body: Body) -> None:
        """Passes on what a front tells all others."""
        for link in self._links - {sender}:
            link.tell(message, body)

    async def ask_others(self, sender: Link, question: Head) -> list[tuple[Head, bytes]]:
        """What the other fronts answer a front. Those that do not answer soon are left out."""
        answers = await asyncio.gather(*(_answer_of(link, question) for link in self._links - {sender}))
        return [answer for answer in answers if answer is not None]

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


async def _answer_of(link: Link, question: Head) -> tuple[Head, bytes] | None:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await link.ask(question)
    except Exception:  # noqa: BLE001 - it has gone, or is busy, or has failed and logged it
        _log.debug("A front has not answered a question of another one")
        return None


def _known_message(reference_id: ReferenceId, known: Known, *, is_news: bool) -> tuple[Head, Body]:
    head: Head = {"tell": "known", "id": reference_id, "is_news": is_news}
    if isinstance(known, ReferenceInfo):
        return head, body_of(known)
    return head | {"error": None if known is None else error_to_json(known)}, b""
