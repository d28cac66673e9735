"""The overlay options of `infer` and `stream`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchserve_client import OverlayFormat

SUFFIXES = {OverlayFormat.PNG: ".png", OverlayFormat.JPEG: ".jpg", OverlayFormat.WEBP: ".webp"}

FormatOption = Annotated[
    OverlayFormat | None,
    typer.Option(
        "--overlay-format", help="Overlay format: png is lossless, jpeg the fastest, webp the smallest.  [default: png]"
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option("--overlay-max-side", min=16, max=65_535, metavar="PX", help="Scale larger overlays down to PX."),
]
