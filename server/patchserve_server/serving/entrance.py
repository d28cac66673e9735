"""What all faces of the server share, so that none of them can starve another."""

from __future__ import annotations

from dataclasses import dataclass, field

from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.peers import Peers
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.reception import Reception
from patchserve_server.serving.refusal_pacing import RefusalPacing


@dataclass(frozen=True, slots=True, eq=False)
class Entrance:
    """What a call passes on its way in and out, whatever face of the server it comes to.

    Args:
        readiness: has the application as soon as the server serves.
        reception: gives calls their permits.
        pacing: when a refusal is answered.
        failures: logs the calls that fail.
        events: hears of all calls.
        peers: the other fronts of this server.
    """

    readiness: Readiness
    reception: Reception
    pacing: RefusalPacing
    failures: FailureLog
    events: Events = NOBODY
    peers: Peers = field(default_factory=Peers)
