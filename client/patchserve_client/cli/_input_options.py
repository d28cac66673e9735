"""The options of a load that say how large the backbone sees images, and a reference's answer in words."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Literal

import typer

from patchserve_client import AspectRatio, LoadOptions, ReferenceInfo

INPUT_PANEL: dict[str, Any] = {"rich_help_panel": "How large the backbone sees images"}


def input_options(
    *,
    input_px: Annotated[
        str | None,
        typer.Option(
            "--input",
            **INPUT_PANEL,
            metavar="PX|AUTO",
            help="Longer side, 224 to 1024 pixels; with --tile-px up to 32000; rounded to what the backbone takes. "
            "More finds smaller damage and costs time and memory. auto: by the size of the first image, 320 at most."
            "  [default: that of the profile; with --tile-px the size of the first image]",
        ),
    ] = None,
    aspect: Annotated[
        AspectRatio | None,
        typer.Option(
            **INPUT_PANEL,
            show_default="squeeze",
            help="squeeze makes a square of every image, keep has the proportions of the first one.",
        ),
    ] = None,
    tile_px: Annotated[
        int | None,
        typer.Option(
            **INPUT_PANEL,
            min=1,
            metavar="PX",
            help="For small damage in large images: the backbone sees them as tiles of this side, 224 to 1024 pixels.",
        ),
    ] = None,
    tile_overlap: Annotated[
        float | None,
        typer.Option(
            **INPUT_PANEL,
            min=0,
            max=0.5,
            metavar="SHARE",
            show_default="0.25",
            help="How far neighboring tiles overlap, as a share of a tile's side.",
        ),
    ] = None,
) -> LoadOptions:
    """The options for the client.

    Raises:
        typer.BadParameter: a value or a combination of values is not valid.
    """
    if tile_overlap is not None and tile_px is None:
        raise typer.BadParameter("--tile-overlap needs --tile-px: set both.")
    return LoadOptions(
        input_px=None if input_px is None else side_px(input_px),
        aspect=aspect,
        tile_px=tile_px,
        tile_overlap=tile_overlap,
    )


def side_px(text: str) -> int | Literal["auto"]:
    """The value of --input.

    Raises:
        typer.BadParameter: it is none.
    """
    if text == "auto":
        return "auto"
    with contextlib.suppress(ValueError):
        if (pixels := int(text)) > 0:
            return pixels
    raise typer.BadParameter(f"--input must be a number of pixels, such as 320, or auto, not {text!r}.")


def input_text(reference: ReferenceInfo, unit: str = "") -> str:
    """The size of a reference's model inputs in pixels, as in "320 x 320" and "4192 x 3040, tiles of 448"."""
    size = f"{reference.input_width_px} x {reference.input_height_px}{unit}"
    return size if reference.tile_px is None else f"{size}, tiles of {reference.tile_px}{unit}"
