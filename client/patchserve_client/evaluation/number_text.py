"""Metrics and their intervals as text."""

from __future__ import annotations

from patchserve_client.evaluation.intervals import Interval

NONE = "-"  # not defined


def share_text(value: float | None) -> str:
    """A metric from 0 to 1, as in "0.955"."""
    return NONE if value is None else f"{value:.3f}"


def percent_text(value: float | None) -> str:
    """A share as in "3.3 %"."""
    return NONE if value is None else f"{100 * value:.1f} %"


def share_range(interval: Interval | None) -> str:
    """An interval of a metric, as in "0.921 to 0.982"."""
    return NONE if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def percent_range(interval: Interval | None) -> str:
    """An interval of a share, as in "0.4 to 11.5 %"."""
    return NONE if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def with_range(text: str, interval: str) -> str:
    """Both, as in "0.955 (0.921 to 0.982)"."""
    return text if interval == NONE else f"{text} ({interval})"


def three_digits(value: float) -> str:
    """A time in ms or a size in MiB, as in "41.2"."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - three digits
