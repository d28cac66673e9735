"""Which settings a sweep tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import typer

from patchserve_client import LoadOptions, ScoringProfile
from patchserve_client.cli._evaluation_plan import Plan
from patchserve_client.cli._sweep_options import CORESET_RATIOS, INPUTS_PX, PROFILES, SweptValues
from patchserve_client.evaluation import Axes

_T = TypeVar("_T")


def axes(plan: Plan, swept: SweptValues) -> Axes:
    """The values to try: those of an option of the sweep, else that of the option of a load, else the default.

    Raises:
        typer.BadParameter: both options were used.
    """
    fixed = plan.load_options
    profile, ratio = fixed.get("profile"), fixed.get("coreset_ratio")
    if fixed.get("coreset_max_patches") is not None and swept.coreset_ratios is not None:
        raise typer.BadParameter("--coreset-max-patches and --sweep-coreset exclude each other.")
    ratios = CORESET_RATIOS if fixed.get("coreset_max_patches") is None else (None,)
    return Axes(
        _axis("profile", swept.profiles, None if profile is None else ScoringProfile(profile), PROFILES),
        _axis("input", swept.inputs_px, fixed.get("input_px"), INPUTS_PX if fixed.get("tile_px") is None else (None,)),
        _axis("coreset", swept.coreset_ratios, ratio, ratios, fixed_option="--coreset-ratio"),
        _axis("references", swept.reference_counts, plan.reference_count, (None,)),
    )


def fixed_options(options: LoadOptions) -> LoadOptions:
    """The options of every load, without those that the settings have."""
    return {**options, **LoadOptions(profile=None, input_px=None, coreset_ratio=None)}


def _axis(
    name: str, swept: Sequence[_T] | None, fixed: _T | None, default: Sequence[_T], fixed_option: str = ""
) -> Sequence[_T]:
    if fixed is None:
        return default if swept is None else swept
    if swept is not None:
        raise typer.BadParameter(f"{fixed_option or f'--{name}'} and --sweep-{name} exclude each other.")
    return (fixed,)
