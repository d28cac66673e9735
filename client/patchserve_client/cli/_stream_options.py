"""The options of `stream` about its source."""

from __future__ import annotations

from typing import Annotated

import typer

from patchserve_client.cli._durations import DURATION, INTERVAL

FpsOption = Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Largest number of frames a second.")]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Stay at the folder and inspect new images, each when it is whole.")
]
DropOldestOption = Annotated[
    bool | None,
    typer.Option(
        "--drop-oldest/--block",
        help="If the server is slower than the source: leave the oldest frames out, or slow the source down.  "
        "[default: drop for a camera, block otherwise]",
    ),
]
MaxInFlightOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Largest number of frames in progress.  [default: 4 for a camera, the server's setting otherwise]",
    ),
]
FrozenOption = Annotated[
    float,
    typer.Option(
        **INTERVAL, show_default=False, help="A camera without a new frame for so long is lost.  [default: 10s]"
    ),
]
ReconnectOption = Annotated[
    float,
    typer.Option(
        **DURATION,
        show_default=False,
        help="How long to try to reach a camera that is lost; 0: not at all.  [default: 5m]",
    ),
]
ResumeOption = Annotated[
    float,
    typer.Option(
        **DURATION,
        show_default=False,
        help="How long to try to reach the server again if the connection is lost or the server drains.  [default: 0]",
    ),
]
