"""What all connections of the HTTP server share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

import uvicorn
from uvicorn.server import ServerState

from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.reading_places import ReadingPlaces

# uvicorn logs a line for each request that is not HTTP, and a trace for each caller who leaves: anybody could fill a
# disk. What matters of it is logged here.
SILENT: Final = logging.Logger("uvicorn of patchserve", logging.CRITICAL + 1)  # noqa: LOG001 - not for everybody


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What all connections share.

    Args:
        config: uvicorn's, with the application.
        entrance: says whether the server serves, and logs failures.
        write_timeout_s: how long a part of a response waits for a caller who does not read.
        large_messages: where large messages of WebSockets are received.
        max_age_s: after which a connection takes no more requests; 0: no limit.
        state: uvicorn's: the tasks that answer requests.
    """

    config: uvicorn.Config
    entrance: Entrance
    write_timeout_s: float
    large_messages: ReadingPlaces
    max_age_s: float
    state: ServerState = field(default_factory=ServerState)

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every response."""
        return [(b"date", formatdate(usegmt=True).encode())]
