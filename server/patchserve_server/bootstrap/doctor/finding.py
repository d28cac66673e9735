"""What the doctor finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.StrEnum):
    """How it is: a server starts and works, works with a drawback or a risk, or does not start or work."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Args:
        subject: what was looked at, such as `store`.
        status: how it is.
        message: what was found.
        advice: what to do; empty if there is nothing to do.
    """

    subject: str
    status: Status
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        if not self.message or (self.status is Status.OK) == bool(self.advice):
            raise ValueError("A warning and a fault say what to do.")


def ok(subject: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, Status.OK, message)


def warning(subject: str, message: str, advice: str) -> Finding:
    """A server works, but has a drawback or a risk."""
    return Finding(subject, Status.WARNING, message, advice)


def fault(subject: str, message: str, advice: str) -> Finding:
    """A server does not start, or does not work."""
    return Finding(subject, Status.FAULT, message, advice)
