"""What a child process is told at its start, and what it tells its parent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeAlias

from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings


@dataclass(frozen=True, slots=True)
class Assignment:
    """The part of one child. Files are open files that it inherits.

    Args:
        role: what it does.
        number: of the front, from 0.
        fronts: how many there are.
        engine: the address of the engine.
        devices: the addresses of the processes of further devices; that of number 1 comes first.
        is_elsewhere: whether engine and fronts are on several machines, and share no memory.
        settings: all settings of the server, as JSON.
        ledgers: the file of the ledgers.
        pixels: the files of the pixels, for the engine and for each further device those of all fronts.
        bells: an eventfd of each front, which wakes it.
        metrics: the path of the socket where the parent reads the metrics of the child; empty: there are none.
    """

    role: Literal["engine", "device", "front"]
    number: int
    fronts: int
    engine: str
    devices: tuple[str, ...]
    is_elsewhere: bool
    settings: dict[str, Any]
    ledgers: int
    pixels: tuple[int, ...]
    bells: tuple[int, ...]
    metrics: str = ""

    @property
    def name(self) -> str:
        return "engine" if self.role == "engine" else f"{self.role} {self.number}"

    @property
    def files(self) -> tuple[int, ...]:
        return (self.ledgers, *self.pixels, *self.bells)

    def on_device(self, number: int, device: str, count: int) -> Self:
        """The part of the process with this device, one of several; that of number 0 keeps the references."""
        threads = max(1, self.settings["threads"] // count) if device == "cpu" else self.settings["threads"]
        settings = self.settings | {"device": device, "threads": threads}
        return replace(self, role="device" if number else "engine", number=number, settings=settings)

    def with_settings(self, settings: Settings) -> Self:
        """The same with what may change at run time."""
        changed = settings.model_dump(mode="json")
        own = {name: self.settings[name] for name in ("device", "threads")}
        return replace(self, settings=changed | own)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**json.loads(line))

    def read_settings(self) -> Settings:
        return Settings(**self.settings)


@dataclass(frozen=True, slots=True)
class Ready:
    """A child is ready. An engine has a detector, and an address; a front has the addresses."""

    detector: str = ""  # in words
    references: int = 0
    addresses: Addresses | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A child cannot start with these settings."""

    message: str


@dataclass(frozen=True, slots=True)
class Alive:
    """A child answers. `busy_s`: how long it has been computing one batch."""

    busy_s: float


Report: TypeAlias = Ready | Failed | Alive


def report_line(report: Report) -> str:
    return json.dumps({type(report).__name__: asdict(report)})


def report_of(line: bytes) -> Report:
    ((kind, fields),) = json.loads(line).items()
    if kind == Alive.__name__:
        return Alive(**fields)
    if kind == Failed.__name__:
        return Failed(**fields)
    addresses = fields.pop("addresses")
    return Ready(**fields, addresses=addresses and Addresses(**addresses))
