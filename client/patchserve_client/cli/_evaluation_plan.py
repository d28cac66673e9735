"""The arguments of `patchserve evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchserve_client import LoadOptions
from patchserve_client.cli._formats import OutputFormat
from patchserve_client.cli._sweep_options import SweptValues


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and where to write it."""

    dataset: Path
    reference_id: str
    reference_count: int | None  # None: all
    seed: int | None
    load_options: LoadOptions
    sweep: SweptValues | None  # None: only these options
    keep: bool
    output: OutputFormat
    out: Path | None
    report: Path | None
    damage: bool  # whether to measure the notebook's measure, too
