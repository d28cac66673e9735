"""The options of `stream` about its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client.cli._durations import DURATION, INTERVAL
from patchserve_client.cli._inspection_options import FILES_PANEL
from patchserve_client.cli._paths import NEW_FILE

_PANEL: dict[str, Any] = {"rich_help_panel": "The source"}

SourceArgument = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A folder, a video file, the index of a camera, or the URL of a stream."),
]
FpsOption = Annotated[
    float | None,
    typer.Option(
        **_PANEL,
        min=0.01,
        metavar="N",
        help="Largest number of frames a second; in a video, a second of the video.",
    ),
]
WatchOption = Annotated[
    bool, typer.Option("--watch", **_PANEL, help="Stay at the folder and inspect new images, each when it is whole.")
]
DropOldestOption = Annotated[
    bool | None,
    typer.Option(
        "--drop-oldest/--block",
        **_PANEL,
        show_default="drop for a camera, block otherwise",
        help="If the server is slower than the source: leave the oldest frames out, or slow the source down.",
    ),
]
LimitOption = Annotated[int | None, typer.Option(**_PANEL, min=1, metavar="N", help="Stop after N frames.")]
MaxInFlightOption = Annotated[
    int | None,
    typer.Option(
        **_PANEL,
        min=1,
        metavar="N",
        show_default="4 for a camera, the server's setting otherwise",
        help="Largest number of frames in progress.",
    ),
]
FrozenOption = Annotated[
    float,
    typer.Option(**_PANEL, **INTERVAL, show_default="10s", help="A camera without a new frame for so long is lost."),
]
ReconnectOption = Annotated[
    float,
    typer.Option(
        **_PANEL,
        **DURATION,
        show_default="5m",
        help="How long to try to reach a camera that is lost; 0: not at all.",
    ),
]
ResumeOption = Annotated[
    float,
    typer.Option(
        **_PANEL,
        **DURATION,
        show_default="0",
        help="How long to try to reach the server again if the connection is lost or the server drains.",
    ),
]
VideoOption = Annotated[
    Path | None,
    typer.Option(**FILES_PANEL, **NEW_FILE, metavar="FILE", help="Write a video of overlays and verdicts."),
]
