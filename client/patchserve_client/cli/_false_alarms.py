"""The rate of false alarms that a load asks for, and what a reference says of its own."""

from __future__ import annotations

import contextlib

import typer

from patchserve_client import CalibrationMethod, ReferenceInfo
from patchserve_client._counted import counted

_FAR = 10  # how many times below the smallest rate that the images show


def false_alarm_rate(text: str) -> float:
    """The share in "2%" or "0.02". The server says which rates are allowed.

    Raises:
        typer.BadParameter: the text is neither.
    """
    with contextlib.suppress(ValueError):
        rate = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        if 0 < rate < 1:
            return rate
    raise typer.BadParameter(
        f'--false-alarms must be a share of the undamaged items, as in "2%" or 0.02, not {text!r}.'
    )


def expected_false_alarms(reference: ReferenceInfo) -> str | None:
    """As in "15 %, with 95 % confidence at most 28 %"; None: not known."""
    rate, upper = reference.calibration.false_alarm_rate, reference.calibration.false_alarm_rate_upper
    if rate is None or upper is None:
        return None
    return f"{percent(rate)}, with 95 % confidence at most {percent(upper)}"


def false_alarms_note(reference: ReferenceInfo) -> str | None:
    """A note if the images tell less about the requested rate than it seems."""
    requested = reference.false_alarm_rate
    if requested is None:
        return None
    images = counted(reference.image_count, "image")
    if reference.calibration.method is CalibrationMethod.AUGMENTED_VIEWS:
        return f"Note: {images} cannot tell how often other items are called anomalous. --false-alarms changes nothing."
    smallest = 1 / (reference.calibration.normal_scores.count + 1)  # the chance that the next score is the highest
    if requested >= smallest:
        return None
    shown = f"Note: {images} alone show no rate below {percent(smallest)}. {percent(requested)} is"
    if requested * _FAR >= smallest:
        return (
            f"{shown} extrapolated: it is right if the scores of undamaged items are distributed as extreme values "
            "usually are. More images make it surer."
        )
    highest = reference.calibration.normal_scores.max
    times = f": {reference.calibration.image_threshold / highest:.1f} times their highest score" if highest > 0 else ""
    return (
        f"{shown} far beyond that, so the threshold is a guess{times}. Much damage may be missed. Ask for "
        f"{percent(smallest)} or more, or load more images."
    )


def percent(share: float) -> str:
    """As in "15 %" and "0.2 %": two digits that count, or whole percents."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"  # noqa: PLR2004
