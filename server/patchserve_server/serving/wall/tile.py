"""Tiles: inspections as the wall shows them."""

from __future__ import annotations

from dataclasses import dataclass

from patchserve_server.domain.events import Origin
from patchserve_server.domain.inspection import Inspection


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One inspection on the wall."""

    tile_id: str  # is never used again, also after a restart
    number: int  # counts the inspections of the server
    time_s: float  # when it was finished, since the epoch
    origin: Origin
    inspection: Inspection  # without its overlay and its score map
    is_kept: bool  # whether its image was kept
    thumbnail: bytes = b""  # JPEG; empty: none was drawn

    @property
    def is_anomalous(self) -> bool:
        return self.inspection.verdict.anomaly.is_anomalous
