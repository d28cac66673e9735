"""The overlays of `infer` and `stream`: their options, and what is written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from patchserve_client import HeatmapScale, InferenceResult, OutputOptions, OverlayFormat
from patchserve_client._annotated import ANNOTATED_MAX_SIDE_PX, annotated
from patchserve_client.cli._signatures import expanded

OVERLAY_PANEL: dict[str, Any] = {"rich_help_panel": "Overlays"}
SUFFIXES = {OverlayFormat.PNG: ".png", OverlayFormat.JPEG: ".jpg", OverlayFormat.WEBP: ".webp"}
_QUALITY = 92  # of a JPEG or WebP that was drawn on

FormatOption = Annotated[
    OverlayFormat | None,
    typer.Option(
        "--overlay-format",
        **OVERLAY_PANEL,
        show_default="png",
        help="Overlay format: png is lossless, jpeg the fastest, webp the smallest.",
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        "--overlay-max-side",
        **OVERLAY_PANEL,
        min=16,
        max=65_535,
        metavar="PX",
        show_default=f"{ANNOTATED_MAX_SIDE_PX}; with --exact no limit",
        help="Scale larger overlays down to PX.",
    ),
]


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """How overlays are requested and written."""

    scale: HeatmapScale = HeatmapScale.CALIBRATED
    format: OverlayFormat = OverlayFormat.PNG
    max_side_px: int | None = ANNOTATED_MAX_SIDE_PX  # None: the image's own size
    is_exact: bool = False  # the server's bytes, without a header

    @property
    def for_request(self) -> OutputOptions:
        return OutputOptions(
            overlay=True,
            heatmap_scale=self.scale,
            overlay_format=self.format,
            overlay_max_side_px=self.max_side_px,
        )

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.format]

    def drawn(self, result: InferenceResult, threshold: float = 1.0) -> bytes:
        """The file to write for a result with an overlay. `threshold` as in `annotated`."""
        if self.is_exact and result.encoded_overlay is not None:
            return result.encoded_overlay.data
        file = io.BytesIO()
        annotated(result, self.scale, threshold).save(file, self.format.upper(), quality=_QUALITY, compress_level=1)
        return file.getvalue()


def _overlay_style(
    *,
    heatmap_scale: Annotated[
        HeatmapScale | None,
        typer.Option(
            **OVERLAY_PANEL,
            show_default="calibrated",
            help="Colors of overlays: calibrated shows how far above the threshold; relative is stretched to each "
            "image, as in the notebook, so that an intact image has a red spot, too.",
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            **OVERLAY_PANEL,
            help="Write the server's overlays byte for byte, without verdict and color scale.",
        ),
    ] = False,
    overlay_format: FormatOption = None,
    overlay_max_side: MaxSideOption = None,
) -> OverlayStyle | None:
    """The style; None: none of the options was used."""
    if not exact and (heatmap_scale, overlay_format, overlay_max_side) == (None, None, None):
        return None
    return OverlayStyle(
        heatmap_scale or HeatmapScale.CALIBRATED,
        overlay_format or OverlayFormat.PNG,
        overlay_max_side or (None if exact else ANNOTATED_MAX_SIDE_PX),
        exact,
    )


takes_overlay_style = expanded("style", _overlay_style)
"""Decorator of a command with a parameter `style: OverlayStyle | None`. None: the user chose none."""
