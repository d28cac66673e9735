"""The option `--white-level` of commands that send images."""

from __future__ import annotations

from typing import Annotated

import typer

from patchserve_client._choices import MAX_WHITE_LEVEL

WhiteLevelOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_WHITE_LEVEL,
        metavar="N",
        show_default="that of the reference, if it has one; else what the file says",
        help="For 10, 12 or 14 bits in files with 16: the value that is white. 4095 for 12 bits.",
    ),
]
