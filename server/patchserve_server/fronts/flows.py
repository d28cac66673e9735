"""The flows of all fronts, as their engine tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchserve_server.fronts.frames import Head
from patchserve_server.serving.fairness import FlowKey

_STREAM_BITS: Final = 48


@dataclass(frozen=True, slots=True)
class SessionFlows:
    """The flows of one front. Each front numbers its own streams.

    Args:
        session: its number, which no other session of the engine has.
    """

    session: int

    def of(self, request: Head) -> FlowKey:
        """The flow that a request names."""
        stream = request["stream"]
        return FlowKey(request["client"], stream and (self.session << _STREAM_BITS) + stream)
