"""The counts of all processes of the server that answer calls."""

from __future__ import annotations

import json
from typing import Final

from patchserve_server.serving.peers import Answer, Peers, Question
from patchserve_server.serving.statistics import Counts, ServerStatistics, summed
from patchserve_server.serving.values import body_of, from_json

_NAME: Final = "counts"


class SharedStatistics:
    """What this process has counted, with what the others have.

    Args:
        own: of this process.
        peers: the other fronts.
    """

    def __init__(self, own: ServerStatistics, peers: Peers) -> None:
        self._own = own
        self._peers = peers
        peers.answer_with(_NAME, self._answer)

    async def counts(self) -> Counts:
        """What all of them have counted until now."""
        answers = await self._peers.ask(_NAME, {})
        return summed([self._own.counts(), *(from_json(Counts, json.loads(body)) for _, body in answers if body)])

    async def _answer(self, _: Question) -> Answer:
        return {}, body_of(self._own.counts())
