"""What every command that loads a reference has in common."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import InvalidArgument, Polygon, ScoringProfile
from patchserve_client.cli._connection import fail


def polygon(text: str) -> Polygon:
    """The corners in "x,y x,y x,y"."""
    try:
        corners = [tuple(map(float, corner.split(","))) for corner in text.split()]
        return [(x, y) for x, y in corners]
    except ValueError:
        raise typer.BadParameter(f'A region is corners as in "0.1,0 0.9,0 0.9,1 0.1,1", not {text!r}.') from None


Profile = Annotated[ScoringProfile | None, typer.Option(help="How the reference scores.  [default: notebook]")]
CoresetRatio = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Keep this share of all patches.")
]
CoresetMaxPatches = Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep at most so many patches.")]
SearchRadius = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="For a fixed camera: compare patches only this far around, as a share of the picture's side.",
    ),
]
Regions = Annotated[
    list[Polygon] | None,
    typer.Option(
        "--region",
        metavar="POLYGON",
        parser=polygon,
        help='Only what lies in here counts: corners as shares of width and height, as "0.1,0 0.9,0 0.9,1 0.1,1". '
        "May be given again.",
    ),
]


def check_coreset(ratio: float | None, max_patches: int | None) -> None:
    """Refuses options that the ranges of each alone let through."""
    if ratio is not None and max_patches is not None:
        raise typer.BadParameter("--coreset-ratio and --coreset-max-patches exclude each other.")
    if ratio == 0:
        raise typer.BadParameter("--coreset-ratio is above 0.")


@contextlib.contextmanager
def refused_file_named(files: list[Path]) -> Iterator[None]:
    """Ends the program with the name of the file that the server means by `images[3]`."""
    try:
        yield
    except InvalidArgument as error:
        refused = _refused_file(error, files)
        if refused is None:
            raise
        fail(f"{refused}: {error.message} Nothing was loaded. ({error.reason})")


def _refused_file(error: InvalidArgument, files: list[Path]) -> Path | None:
    for violation in error.field_violations:
        place = re.fullmatch(r"images\[(\d+)\]", violation.field)
        if place and int(place[1]) < len(files):
            return files[int(place[1])]
    return None
