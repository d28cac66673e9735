"""A caller of server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT_S = 60


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: Any


class EventStream:
    """The events of a response, as they come."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self._lines = response.iter_lines(chunk_size=1, decode_unicode=True)

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                fields = {}

    def next(self, name: str) -> Event:
        """The next event of this name."""
        return next(event for event in self if event.name == name)

    def tiles(self, count: int) -> list[dict[str, Any]]:
        """The next tiles."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += self.next("update").data["tiles"]
        return found


@contextmanager
def events(url: str, **headers: str) -> Iterator[EventStream]:
    """The stream of events at this URL. At the end, the connection is closed."""
    with requests.get(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}, stream=True, timeout=TIMEOUT_S
    ) as response:
        assert response.status_code == 200, response.text
        yield EventStream(response)
