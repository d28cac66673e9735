"""A server in a process of its own, under constant load: images a second, and its processor time for each image."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from patchserve.v1 import inference_pb2, reference_pb2, service_pb2_grpc

PARCELS = Path(__file__).resolve().parents[1] / "samples" / "parcels"
SERVE = ("-c", "from patchserve_server.cli import main; main()", "serve")
START_TIMEOUT_S = 300
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Served:
    """A server that runs, and the lines that it has printed when it was ready."""

    pid: int
    address: str
    lines: tuple[str, ...]

    @property
    def http_url(self) -> str:
        return self.lines[0].split(" and ")[1].split()[0]

    @property
    def metrics_url(self) -> str:
        return self.lines[-1].removeprefix("For Prometheus: ").strip()


@contextmanager
def server(*flags: str, program: Sequence[str] = SERVE, further_lines: int = 0) -> Iterator[Served]:
    """A server with these flags, which prints so many lines after its first one."""
    command = [sys.executable, *program, "--port", "0", "--client-share", "1", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            lines = tuple(process.stdout.readline() for _ in range(1 + further_lines))
            yield Served(process.pid, lines[0].split(" listening on ")[1].split()[0], lines)
        finally:
            process.terminate()


def load_reference(address: str, paths: Sequence[Path] = ()) -> None:
    """Loads undamaged parcels as the reference `default`: these images, or all."""
    images = [path.read_bytes() for path in paths or sorted((PARCELS / "train" / "good").iterdir())]
    with grpc.insecure_channel(address) as channel:
        service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(
            reference_pb2.LoadReferenceRequest(images=images), timeout=START_TIMEOUT_S
        )


class Load:
    """Callers that send one image after the other."""

    def __init__(self, address: str, images: list[bytes], clients: int) -> None:
        self.count = 0
        self._address, self._images = address, images
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)
            while not self._ends.is_set():
                for image in self._images:
                    stub.Infer(inference_pb2.InferRequest(image=image))
                    with self._lock:
                        self.count += 1
                    if self._ends.is_set():
                        return


@dataclass(frozen=True)
class Window:
    """What the callers got in one window."""

    images_per_s: float
    cpu_ms_per_image: float


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def measure(pid: int, load: Load, window_s: float) -> Window:
    """What the callers get from now on, for so long."""
    started_s, count, cpu = time.perf_counter(), load.count, cpu_s(pid)
    time.sleep(window_s)
    images = load.count - count
    return Window(images / (time.perf_counter() - started_s), 1000 * (cpu_s(pid) - cpu) / images)
