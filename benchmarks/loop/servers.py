"""The servers whose main thread is measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import psutil
from throughput.processes import read_first_line, run_process

from patchserve.v1 import reference_pb2, service_pb2_grpc

ROOT: Final = Path(__file__).resolve().parents[2]
PARCELS: Final = ROOT / "samples" / "parcels"
OVERLAY_BYTES: Final = 700_000  # of a photograph of 1001 x 712
ASYNCIO: Final = {"LOOP_ASYNCIO": "1"}
BLOCKS: Final = {"LOOP_BLOCKS": "1"} | ASYNCIO
_FLAGS: Final = ("--port", "0", "--http-port", "0", "--drain-delay-s", "0", "--client-share", "1")


@dataclass(frozen=True)
class Server:
    """A server, and where it listens."""

    pid: int
    grpc: str
    http: str

    def main_thread_s(self) -> float:
        """Processor time of the main thread so far."""
        (main,) = (thread for thread in psutil.Process(self.pid).threads() if thread.id == self.pid)
        return float(main.user_time + main.system_time)


@contextmanager
def start_echo(overlay: bool, folder: Path) -> Iterator[Server]:
    """A bare server of grpc.aio whose responses have the usual size."""
    with _start("loop.echo_server", str(OVERLAY_BYTES if overlay else 0), checkout=ROOT, folder=folder) as server:
        yield server


@contextmanager
def start_collector(folder: Path) -> Iterator[str]:
    """A collector of OpenTelemetry; yields its address."""
    with _start("loop.null_collector", checkout=ROOT, folder=folder) as server:
        yield server.grpc


@contextmanager
def start_stub(checkout: Path, folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    """The server of a checkout, without a network, and with one reference."""
    with _start("loop.stub_server", *_FLAGS, checkout=checkout, folder=folder, environment=environment) as server:
        image = min((PARCELS / "train" / "good").iterdir()).read_bytes()
        with grpc.insecure_channel(server.grpc) as channel:
            request = reference_pb2.LoadReferenceRequest(images=[image])
            service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(request)
        yield server


@contextmanager
def _start(
    module: str, *arguments: str, checkout: Path, folder: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    parts = (ROOT / "benchmarks", checkout / "server", checkout / "protos" / "python")
    variables = {"PYTHONPATH": os.pathsep.join(map(str, parts))} | (environment or {})
    log = folder / f"{module}-{len(list(folder.iterdir()))}.log"
    with run_process([sys.executable, "-m", module, *arguments], log, variables) as process:
        address, *more = read_first_line(process, log).split(" listening on ")[1].split()
        yield Server(process.pid, address, more[1] if more else "")
        process.terminate()
        assert process.stdout is not None
        print(process.stdout.read().partition("LONGEST\n")[2], end="")
