"""The options of `infer` and `stream` that decide where a verdict turns and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from patchserve_client import OutputOptions
from patchserve_client.cli._signatures import expanded

_RANGE = {"min": 0.1, "max": 10}


@dataclass(frozen=True, slots=True)
class VerdictOptions:
    """What to ask the server for, and how to say it."""

    sensitivity: float | None = None  # of the request; None: 1
    threshold: float = 1.0  # where the verdict turns, in the unit of the ratios that are shown
    max_regions: int | None = None  # None: the server's default
    damage: bool = False  # whether to show the notebook's measure

    @property
    def for_request(self) -> OutputOptions:
        return OutputOptions(sensitivity=self.sensitivity, max_regions=self.max_regions)


def _verdict_options(
    *,
    sensitivity: Annotated[
        float | None,
        typer.Option(**_RANGE, metavar="S", help="Divide the threshold by S: above 1 finds more.  [default: 1]"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            **_RANGE,
            metavar="X",
            help='Call anomalous what is above X, in the unit of the column "x threshold". Instead of --sensitivity.  '
            "[default: 1]",
        ),
    ] = None,
    max_regions: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Largest number of regions to list.  [default: 16]")
    ] = None,
    damage: Annotated[
        bool, typer.Option("--damage", help="Also show the notebook's damage percentage, which is not a verdict.")
    ] = False,
) -> VerdictOptions:
    if threshold is None:
        return VerdictOptions(sensitivity, 1.0, max_regions, damage)
    if sensitivity is not None:
        raise typer.BadParameter("--sensitivity and --threshold exclude each other: both move the threshold.")
    return VerdictOptions(1 / threshold, threshold, max_regions, damage)


takes_verdict_options = expanded("verdicts", _verdict_options)
"""Decorator of a command with a parameter `verdicts: VerdictOptions`."""
