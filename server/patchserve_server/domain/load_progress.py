"""The progress of a load."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from patchserve_server.domain.reference_id import ReferenceId


class LoadStage(enum.Enum):
    """The stages of a load, in this order."""

    RECEIVE = "receive"
    QUANTIZE = "quantize"
    EMBED = "embed"
    CORESET = "coreset"
    CALIBRATE = "calibrate"
    SAVE = "save"


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of one load at one moment. Steps are those of its stage."""

    reference_id: ReferenceId
    stage: LoadStage
    steps_done: int
    steps_total: int  # 0: unknown
    start_time: datetime  # UTC
    image_count: int  # images received so far
