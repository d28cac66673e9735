"""The options of `infer` and `stream` that decide where a verdict turns and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from patchserve_client import Client, OutputOptions
from patchserve_client._choices import SENSITIVITY_RANGE
from patchserve_client.cli._signatures import expanded

VERDICT_PANEL: dict[str, Any] = {"rich_help_panel": "Verdicts"}
_RANGE: dict[str, Any] = {"min": SENSITIVITY_RANGE[0], "max": SENSITIVITY_RANGE[1]}
SENSITIVITY: dict[str, Any] = {**_RANGE, "metavar": "S"}


@dataclass(frozen=True, slots=True)
class VerdictOptions:
    """What to ask the server for, and how to say it."""

    sensitivity: float | None = None  # of the request; None: that of the reference
    threshold: float = 1.0  # where the verdict turns, as a multiple of the reference's own threshold
    max_regions: int | None = None  # None: the server's default
    damage: bool = False  # whether to show the notebook's measure

    def for_request(self, client: Client, reference_id: str) -> OutputOptions:
        """What to request. With another threshold than 1, asks the server for the sensitivity of the reference.

        Raises:
            PatchserveError: the server did not answer, or has no such reference.
        """
        sensitivity = self.sensitivity
        if self.threshold != 1:
            sensitivity = client.get_reference(reference_id).sensitivity / self.threshold
        return OutputOptions(sensitivity=sensitivity, max_regions=self.max_regions)


def _verdict_options(
    *,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            **SENSITIVITY,
            **VERDICT_PANEL,
            show_default="that of the reference",
            help="Divide the calibrated threshold by S: above 1 finds more.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            **_RANGE,
            **VERDICT_PANEL,
            metavar="X",
            show_default="1",
            help='Call anomalous what is above X, in the unit of the column "x threshold". Not with --sensitivity.',
        ),
    ] = None,
    max_regions: Annotated[
        int | None,
        typer.Option(**VERDICT_PANEL, min=0, metavar="N", show_default="16", help="Largest number of regions to list."),
    ] = None,
    damage: Annotated[
        bool,
        typer.Option(
            "--damage", **VERDICT_PANEL, help="Also show the notebook's damage percentage, which is not a verdict."
        ),
    ] = False,
) -> VerdictOptions:
    if sensitivity is not None and threshold is not None:
        raise typer.BadParameter("--sensitivity and --threshold exclude each other: both move the threshold.")
    return VerdictOptions(sensitivity, 1.0 if threshold is None else threshold, max_regions, damage)


takes_verdict_options = expanded("verdicts", _verdict_options)
"""Decorator of a command with a parameter `verdicts: VerdictOptions`."""
