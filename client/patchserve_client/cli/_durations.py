"""Durations on a command line, such as 500ms, 2s, 1.5m, 12h and 30d. A bare number is in seconds."""

from __future__ import annotations

import re
from typing import Any

import typer

_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FORM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|[smhd]?)")


def duration_s(text: str | float) -> float:
    """The duration in seconds, 0 or more.

    Raises:
        typer.BadParameter: the text is not a duration.
    """
    match = _FORM.fullmatch(str(text).strip().lower())
    if match is None:
        raise typer.BadParameter(f"A duration must be a number with ms, s, m, h or d, such as 2s, not {text!r}.")
    return float(match[1]) * _UNITS_S[match[2]]


def interval_s(text: str | float) -> float:
    """Like `duration_s`, but above 0."""
    seconds = duration_s(text)
    if not seconds > 0:
        raise typer.BadParameter(f"It must be longer than 0, not {text!r}.")
    return seconds


DURATION: dict[str, Any] = {"parser": duration_s, "metavar": "TIME"}
INTERVAL: dict[str, Any] = {"parser": interval_s, "metavar": "TIME"}
