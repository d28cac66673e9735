"""What decoding on the device does to pixels and scores, if the program for it is here."""

from __future__ import annotations

from typing import Any

from gpu.options import Options
from gpu.table import Case


def cases(_: Options) -> list[Case[Any]]:
    return []


def run(options: Options, ends_s: float) -> None:
    del options, ends_s
