"""Several listeners hear of what happens."""

from __future__ import annotations

import inspect
import logging

import pytest
from fakes.events import failed

from patchserve_server.domain.events import NOBODY, Events, InspectionFailed
from patchserve_server.serving.event_fan_out import EventFanOut


class Hearing(Events):
    def __init__(self, heard: list[tuple[str, object]], name: str) -> None:
        self._heard, self._name = heard, name

    def failed(self, event: InspectionFailed) -> None:
        self._heard.append((self._name, event))


class Failing(Events):
    def failed(self, event: InspectionFailed) -> None:
        raise LookupError("a bug")


def test_all_hear_in_the_order_in_which_they_came() -> None:
    heard: list[tuple[str, object]] = []
    events, event = EventFanOut(), failed()
    events.failed(event)
    for name in ("a", "b"):
        events.add(Hearing(heard, name))
    events.failed(event)
    assert heard == [("a", event), ("b", event)]


def test_a_listener_that_fails_disturbs_neither_the_call_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, object]] = []
    events, event = EventFanOut(), failed()
    events.add(Failing())
    events.add(Hearing(heard, "b"))
    with caplog.at_level(logging.ERROR):
        events.failed(event)
    assert heard == [("b", event)]
    assert "Failing" in caplog.text


def test_nobody_listens_until_somebody_was_added() -> None:
    events = EventFanOut()
    assert not events.is_heard
    assert not NOBODY.is_heard
    events.add(Events())
    assert events.is_heard


def test_every_event_is_told() -> None:
    own = {name for name, _ in inspect.getmembers(EventFanOut, inspect.isfunction) if name in vars(EventFanOut)}
    assert {name for name, _ in inspect.getmembers(Events, inspect.isfunction)} <= own
