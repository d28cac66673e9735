"""Shared by `reference load` and `evaluate`: the options of a load, and the name of a rejected file."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from patchserve_client import InvalidArgument, LoadOptions, Polygon, ReferenceViews, ScoringProfile
from patchserve_client.cli._failures import fail, message_of
from patchserve_client.cli._false_alarms import false_alarm_rate
from patchserve_client.cli._input_options import input_options
from patchserve_client.cli._signatures import expanded
from patchserve_client.cli._white_level import WhiteLevelOption

DEFAULT_PROFILE: Final = ScoringProfile.VERDICT
"""Of the shell. That of the contract and of the library is NOTEBOOK, whose numbers are those of the notebook."""
COMPARISON_PANEL: dict[str, Any] = {"rich_help_panel": "How the reference compares"}


def _search_radius(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (radius := float(text)) <= 1:
            return radius
    raise typer.BadParameter(
        f"A search radius must be a share of the image's side, above 0 and at most 1, not {text!r}."
    )


@expanded("size", input_options)
def _load_options(
    *,
    profile: Annotated[
        ScoringProfile | None,
        typer.Option(
            **COMPARISON_PANEL,
            show_default=f"{DEFAULT_PROFILE}; for appended images that of the reference",
            help="How it scores: verdict has the best verdicts, notebook the exact numbers of the documented notebook, "
            "paper those of the paper; subspace is for items that are all alike.",
        ),
    ] = None,
    coreset_ratio: Annotated[
        float | None,
        typer.Option(**COMPARISON_PANEL, min=0, max=1, metavar="SHARE", help="Share of all patches to keep."),
    ] = None,
    coreset_max_patches: Annotated[
        int | None, typer.Option(**COMPARISON_PANEL, min=1, metavar="N", help="Largest number of patches to keep.")
    ] = None,
    search_radius: Annotated[
        float | None,
        typer.Option(
            **COMPARISON_PANEL,
            parser=_search_radius,
            metavar="SHARE",
            help="For a fixed camera: compare a patch only with patches at most this far away, as a share of the "
            "image's side (1 at most).",
        ),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            "--false-alarms",
            **COMPARISON_PANEL,
            parser=false_alarm_rate,
            metavar="RATE",
            show_default="15%",
            help="Share of the undamaged items that may be called anomalous, 0.1% to 50%. Fewer false alarms miss more "
            "damage.",
        ),
    ] = None,
    views: Annotated[
        ReferenceViews | None,
        typer.Option(
            **COMPARISON_PANEL,
            show_default="auto with profile verdict, else none",
            help="Mirrored and turned copies of the images: all always, auto with up to 4 images if it costs no false "
            "alarms.",
        ),
    ] = None,
    scales: Annotated[
        int | None,
        typer.Option(
            **COMPARISON_PANEL,
            min=1,
            max=3,
            metavar="N",
            show_default="1",
            help="For items at different distances from the camera: 2 also compares with copies of the images that are "
            "15 % smaller, 3 also with larger ones.",
        ),
    ] = None,
    approximate_search: Annotated[
        bool,
        typer.Option(
            "--approximate-search",
            **COMPARISON_PANEL,
            help="For very large banks on a CPU: several times as fast, misses about 3 % of the nearest neighbors.",
        ),
    ] = False,
    size: LoadOptions,
    white_level: WhiteLevelOption = None,
) -> LoadOptions:
    """The options for the client.

    Raises:
        typer.BadParameter: a value or a combination of values is not valid.
    """
    if coreset_ratio is not None and coreset_max_patches is not None:
        raise typer.BadParameter("--coreset-ratio and --coreset-max-patches exclude each other.")
    if coreset_ratio == 0:
        raise typer.BadParameter("--coreset-ratio must be above 0.")
    return LoadOptions(
        profile=profile,
        coreset_ratio=coreset_ratio,
        coreset_max_patches=coreset_max_patches,
        search_radius=search_radius,
        approximate_search=approximate_search or None,
        **size,
        views=views,
        scales=scales,
        false_alarm_rate=false_alarms,
        white_level=white_level,
    )


takes_load_options = expanded("options", _load_options)
"""Decorator of a command with a parameter `options: LoadOptions`."""


_FLAGS = {"input_px": "--input", "false_alarm_rate": "--false-alarms"}  # of options that have other names in the shell


def load_command(images: Iterable[Path], options: LoadOptions) -> str:
    """The command line that loads these files or folders with these options."""
    words = ["patchserve", "reference", "load", *map(str, images)]
    for name, value in options.items():
        if value is not None and value is not False:
            words.append(_FLAGS.get(name, f"--{name.replace('_', '-')}"))
            words += [] if value is True else [str(value)]
    return shlex.join(words)


def polygon(text: str) -> Polygon:
    """The corners in "x,y x,y x,y".

    Raises:
        typer.BadParameter: the text is not a polygon.
    """
    with contextlib.suppress(ValueError):
        pairs = [tuple(map(float, corner.split(","))) for corner in text.split()]
        corners = [(x, y) for x, y in pairs]
        if len(corners) >= 3 and all(0 <= share <= 1 for corner in corners for share in corner):  # noqa: PLR2004
            return corners
    form = 'three or more corners, each share 0 to 1, as in "0.1,0 0.9,0 0.9,1 0.1,1"'
    raise typer.BadParameter(f"A --region must be {form}, not {text!r}.")


def polygon_text(corners: Polygon) -> str:
    """The corners as text, the reverse of `polygon`."""
    return " ".join(f"{x},{y}" for x, y in corners)


@contextlib.contextmanager
def rejected_file_named(files: list[Path]) -> Iterator[None]:
    """If the server rejects `images[3]`, exit with the name of that file."""
    try:
        yield
    except InvalidArgument as error:
        file = rejected_file(error, files)
        if file is None:
            raise
        fail(f"{file}: {message_of(error)} Nothing was loaded. ({error.reason})")


def rejected_file(error: InvalidArgument, files: list[Path]) -> Path | None:
    """The file of the image that the server rejected; None: the error is about something else."""
    for violation in error.field_violations:
        match = re.fullmatch(r"images\[(\d+)\]", violation.field)
        if match and int(match[1]) < len(files):
            return files[int(match[1])]
    return None
