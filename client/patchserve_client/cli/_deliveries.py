"""`--webhook URL` and `--mqtt URL`: the results of a stream, sent to whoever acts on them."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from patchserve_client import FrameResult
from patchserve_client.cli import _report
from patchserve_client.cli._delivery import Delivery, Receiver
from patchserve_client.cli._outbox import Message
from patchserve_client.cli._signatures import expanded
from patchserve_client.cli._sources import Tell
from patchserve_client.cli._verdict_options import VerdictOptions
from patchserve_client.cli._webhook import SECRET_VARIABLE, Webhook

_PANEL: dict[str, Any] = {"rich_help_panel": "Receivers"}


class Only(StrEnum):
    """What receivers get."""

    ANOMALIES = "anomalies"
    ALL = "all"


class Deliveries:
    """Sends frames to all receivers. None of them holds the stream up."""

    def __init__(self, deliveries: Sequence[Delivery], source: str, only: Only, verdicts: VerdictOptions) -> None:
        self._deliveries, self._source = deliveries, source
        self._only, self._verdicts = only, verdicts

    def frame(self, frame: FrameResult) -> None:
        """Send the outcome of a frame, if receivers want it."""
        outcome = frame.result or frame.error
        if outcome is not None:
            self.add(frame.frame_id, outcome, frame.sequence, frame.capture_time)

    def add(
        self, name: str, outcome: _report.Outcome, sequence: int | None = None, capture_time: datetime | None = None
    ) -> None:
        """Send an outcome, if receivers want it."""
        is_wanted = self._only is Only.ALL or _report.verdict_of(outcome) == "anomalous"
        if not self._deliveries or not is_wanted:
            return
        facts = {"id": uuid.uuid4().hex, "time": datetime.now(UTC), "source": self._source}
        event = _report.frame_event(name, outcome, self._verdicts, sequence, capture_time)
        body = json.dumps({**facts, **event}, default=datetime.isoformat).encode()
        for delivery in self._deliveries:
            delivery.add(Message(str(facts["id"]), body))


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who gets the results, as the command line says it."""

    webhooks: tuple[str, ...]
    brokers: tuple[str, ...]
    only: Only

    @contextlib.contextmanager
    def opened(self, source: str, verdicts: VerdictOptions, tell: Tell) -> Iterator[Deliveries]:
        """Send until the block ends, and then for a while what is left.

        Raises:
            typer.BadParameter: a URL or a secret is not valid, or the extra is missing.
            OSError: at the end: messages were not delivered.
        """
        receivers = [_checked("--webhook", _webhook, url) for url in self.webhooks]
        receivers += [_checked("--mqtt", _broker, url) for url in self.brokers]
        with contextlib.ExitStack() as cleanup:
            started = [cleanup.enter_context(Delivery(receiver, tell)) for receiver in receivers]
            yield Deliveries(started, source, self.only, verdicts)


def _checked(option: str, make: Callable[[str], Receiver], url: str) -> Receiver:
    try:
        return make(url)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def _webhook(url: str) -> Receiver:
    return Webhook(url, os.environ.get(SECRET_VARIABLE, ""))


def _broker(url: str) -> Receiver:
    try:
        from patchserve_client.cli import _mqtt  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "paho":
            raise
        raise ValueError('it requires paho-mqtt: `pip install ".[mqtt]"` in a checkout of patchserve.') from error
    environment = os.environ
    return _mqtt.MqttBroker(url, environment.get(_mqtt.USER_VARIABLE, ""), environment.get(_mqtt.PASSWORD_VARIABLE, ""))


def _receivers(
    *,
    webhook: Annotated[
        list[str] | None,
        typer.Option(
            **_PANEL,
            metavar="URL",
            help="POST each anomaly as JSON to this http or https URL, signed with PATCHSERVE_WEBHOOK_SECRET. May be "
            "repeated.",
        ),
    ] = None,
    mqtt: Annotated[
        list[str] | None,
        typer.Option(
            **_PANEL,
            metavar="URL",
            help="Publish each anomaly as JSON: mqtt://HOST/TOPIC or mqtts://HOST/TOPIC, with PATCHSERVE_MQTT_USER and "
            "PATCHSERVE_MQTT_PASSWORD. May be repeated.",
        ),
    ] = None,
    only: Annotated[
        Only,
        typer.Option(**_PANEL, help="What --webhook and --mqtt send: anomalies, or the outcome of every frame."),
    ] = Only.ANOMALIES,
) -> Receivers:
    return Receivers(tuple(webhook or ()), tuple(mqtt or ()), only)


takes_receivers = expanded("receivers", _receivers)
"""Decorator of a command with a parameter `receivers: Receivers`."""
