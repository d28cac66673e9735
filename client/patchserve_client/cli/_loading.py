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


def _radius(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (radius := float(text)) <= 1:
            return radius
    raise typer.BadParameter(f"A search radius is a share of the image's side, above 0 and at most 1, not {text!r}.")


Profile = Annotated[ScoringProfile | None, typer.Option(help="How the reference scores.  [default: notebook]")]
CoresetRatio = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Keep this share of all patches.")
]
CoresetMaxPatches = Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep at most so many patches.")]
ApproximateSearch = Annotated[
    bool,
    typer.Option(
        "--approximate-search", help="For huge banks on a CPU: much faster, missing one neighbor in twenty at most."
    ),
]
SearchRadius = Annotated[
    float | None,
    typer.Option(
        parser=_radius,
        metavar="SHARE",
        help="For a fixed camera: compare patches only this far around, as a share of the image's side, 1 at most.",
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="POLYGON",
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


def polygon(text: str) -> Polygon:
    """The corners in "x,y x,y x,y"."""
    with contextlib.suppress(ValueError):
        pairs = [tuple(map(float, corner.split(","))) for corner in text.split()]
        corners = [(x, y) for x, y in pairs]
        if len(corners) >= 3 and all(0 <= share <= 1 for corner in corners for share in corner):  # noqa: PLR2004
            return corners
    allowed = 'three or more corners, each share 0 to 1, as in "0.1,0 0.9,0 0.9,1 0.1,1"'
    raise typer.BadParameter(f"A --region is {allowed}, not {text!r}.")


def polygon_text(corners: Polygon) -> str:
    """As `polygon` reads it."""
    return " ".join(f"{x},{y}" for x, y in corners)


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
