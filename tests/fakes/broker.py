"""A real MQTT broker, mosquitto, and a subscriber."""

from __future__ import annotations

import getpass
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fakes.programs import free_port, program
from fakes.waiting import wait_until


@dataclass
class Broker:
    """mosquitto on a port that stays the same over its restarts. It keeps nothing over a restart."""

    folder: Path
    extra: str = ""  # lines of its configuration
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        conf = self.folder / "mosquitto.conf"
        user = f"user {getpass.getuser()}"  # otherwise root becomes a user who cannot read keys
        conf.write_text(
            f"{user}\nlog_type all\nlistener {self.port} 127.0.0.1\n{self.extra or 'allow_anonymous true'}\n"
        )
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([program("mosquitto"), "-c", str(conf)], stdout=log, stderr=log)
        wait_until(self._listens)

    def kill(self) -> None:
        """It dies at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """It answers nothing any more, and closes no connection."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def published(self) -> int:
        """How many messages it has got since it was started for the first time."""
        return (self.folder / "mosquitto.log").read_text().count("Received PUBLISH ")

    def url(self, topic: str) -> str:
        return f"mqtt://localhost:{self.port}/{topic}"

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@contextmanager
def running_broker(folder: Path, extra: str = "", *, starts: bool = True) -> Iterator[Broker]:
    """A broker; unless `starts`, one that is away."""
    broker = Broker(folder, extra)
    program("mosquitto")
    if starts:
        broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def subscribed(port: int, topic: str, user: str = "", password: str = "") -> Iterator[list[tuple[str, bytes]]]:
    """What is published on these topics while the block runs: topic and message."""
    received: list[tuple[str, bytes]] = []
    is_subscribed: list[bool] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    if user:
        client.username_pw_set(user, password)

    def subscribe(*_: Any) -> None:
        client.subscribe(topic, qos=1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: is_subscribed.append(True)
    client.on_message = lambda _client, _data, message: received.append((message.topic, bytes(message.payload)))
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        wait_until(lambda: bool(is_subscribed))
        yield received
    finally:
        client.disconnect()
        client.loop_stop()
