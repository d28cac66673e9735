"""The options of `patchserve evaluate --sweep`: which values of which options are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import typer

from patchserve_client import ScoringProfile
from patchserve_client.cli._input_options import side_px
from patchserve_client.cli._signatures import expanded

_PANEL: dict[str, Any] = {"rich_help_panel": "Sweep"}
PROFILES: Final = (ScoringProfile.NOTEBOOK, ScoringProfile.VERDICT, ScoringProfile.SUBSPACE)
INPUTS_PX: Final[Sequence[int | Literal["auto"]]] = (224, 320, 448)
CORESET_RATIOS: Final[Sequence[float | None]] = (None, 0.1)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SweptValues:
    """The values of the options, each None if it was not used."""

    profiles: Sequence[ScoringProfile] | None
    inputs_px: Sequence[int | Literal["auto"]] | None
    coreset_ratios: Sequence[float | None] | None
    reference_counts: Sequence[int | None] | None


def _sweep_options(
    *,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep",
            **_PANEL,
            help="Try several settings, each with each other, and print the command that loads the cheapest one "
            "that is as good as the best.",
        ),
    ] = False,
    sweep_profile: Annotated[
        str | None,
        typer.Option(**_PANEL, metavar="NAME,...", show_default=",".join(PROFILES), help="Profiles to try."),
    ] = None,
    sweep_input: Annotated[
        str | None,
        typer.Option(
            **_PANEL, metavar="PX,...", show_default="224,320,448", help="Sizes to try, each a value of --input."
        ),
    ] = None,
    sweep_coreset: Annotated[
        str | None,
        typer.Option(
            **_PANEL,
            metavar="SHARE,...",
            show_default="1,0.1",
            help="Shares of all patches to keep; 1: all.",
        ),
    ] = None,
    sweep_references: Annotated[
        str | None,
        typer.Option(
            **_PANEL, metavar="N,...", show_default="all", help="Numbers of reference images, as in 4,16,all."
        ),
    ] = None,
) -> SweptValues | None:
    """The values; None: no sweep. Each of the options asks for one.

    Raises:
        typer.BadParameter: a value is not valid.
    """
    texts = (sweep_profile, sweep_input, sweep_coreset, sweep_references)
    if not sweep and all(text is None for text in texts):
        return None
    return SweptValues(
        _values("--sweep-profile", sweep_profile, _profile, f"profiles ({', '.join(ScoringProfile)})"),
        _values("--sweep-input", sweep_input, side_px, "numbers of pixels, or auto"),
        _values("--sweep-coreset", sweep_coreset, _ratio, "shares above 0 and at most 1"),
        _values("--sweep-references", sweep_references, _count, 'numbers of images, or "all"'),
    )


takes_sweep_options = expanded("sweep", _sweep_options)
"""Decorator of a command with a parameter `sweep: SweptValues | None`."""


def _values(option: str, text: str | None, parse: Callable[[str], _T], allowed: str) -> tuple[_T, ...] | None:
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(parse(part.strip()) for part in text.split(",")))
    except (ValueError, typer.BadParameter) as error:
        raise typer.BadParameter(f"{option} takes {allowed}, separated by commas, not {text!r}.") from error


def _profile(text: str) -> ScoringProfile:
    return ScoringProfile(text)


def _ratio(text: str) -> float | None:
    ratio = float(text)
    if not 0 < ratio <= 1:
        raise ValueError(text)
    return None if ratio == 1 else ratio


def _count(text: str) -> int | None:
    if text == "all":
        return None
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count
