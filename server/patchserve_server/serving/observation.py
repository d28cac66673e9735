"""How a process of the server is watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from patchserve_server.domain.readings import Readings
from patchserve_server.serving.event_fan_out import EventFanOut


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Who hears what happens, and what can be read at any time. Without listeners and readers it costs nothing."""

    events: EventFanOut = field(default_factory=EventFanOut)
    readings: Readings = field(default_factory=Readings)
