"""The metrics of one process of several, as another one reads them: over a Unix socket of their user alone."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Exemplar

_READ_S: Final = 3.0  # a scrape of Prometheus may take 10 s
_POLL_S: Final = 0.2

Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample, and its labels."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Value:
    """Of one sample."""

    number: float
    exemplar: Exemplar | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples."""

    documentation: str
    kind: str  # as in OpenMetrics: counter, gauge, histogram
    samples: dict[Key, Value]

    @property
    def is_counted(self) -> bool:
        """Whether its values only grow, so that those of an ended process still count."""
        return self.kind in {"counter", "histogram"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All metrics of a process at one moment. `run`: another one after each start."""

    run: str
    families: dict[str, Family]


def families_of(registry: CollectorRegistry) -> dict[str, Family]:
    """The metrics of this process."""
    return {
        family.name: Family(
            family.documentation,
            family.type,
            {
                (sample.name, tuple(sample.labels.items())): Value(sample.value, sample.exemplar)
                for sample in family.samples
            },
        )
        for family in registry.collect()
    }


class SnapshotServer(socketserver.ThreadingUnixStreamServer):
    """Sends a snapshot to whoever connects, from its creation until `close`.

    Args:
        path: of the socket. What a process before has left there is removed.
        registry: what is read.
        prepare_thread: called at the start of the thread that starts all others.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, registry: CollectorRegistry, prepare_thread: Callable[[], None]) -> None:
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Handler)
        self.registry = registry
        self.run = secrets.token_hex(8)
        self._prepare_thread = prepare_thread
        threading.Thread(target=self._serve, name="metrics", daemon=True).start()

    def _serve(self) -> None:
        self._prepare_thread()
        self.serve_forever(_POLL_S)

    def handle_error(self, _request: Any, _address: Any) -> None:  # noqa: ANN401 - as in socketserver
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR  # else it is a bug
        _log.log(level, "The metrics of this process could not be sent", exc_info=True)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(socketserver.BaseRequestHandler):
    server: SnapshotServer

    def handle(self) -> None:
        families = [_to_json(*family) for family in families_of(self.server.registry).items()]
        self.request.settimeout(_READ_S)
        self.request.sendall(json.dumps({"run": self.server.run, "families": families}).encode())


def read_snapshot(path: Path) -> Snapshot | None:
    """The metrics of the process that listens there; None: none does. Blocks."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_READ_S)
        client.connect(str(path))
        with client.makefile("rb") as file:
            message = json.load(file)
        return Snapshot(message["run"], dict(map(_from_json, message["families"])))
    return None


def _to_json(name: str, family: Family) -> list[Any]:
    samples = [[*key, value.number, value.exemplar] for key, value in family.samples.items()]
    return [name, family.documentation, family.kind, samples]


def _from_json(data: list[Any]) -> tuple[str, Family]:
    name, documentation, kind, samples = data
    values = {
        (sample, tuple(map(tuple, labels))): Value(number, None if exemplar is None else Exemplar(*exemplar))
        for sample, labels, number, exemplar in samples
    }
    return name, Family(documentation, kind, values)
