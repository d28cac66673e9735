"""A real server with the embedded backbone, its resource use, and the sample images."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from patchserve.v1 import reference_pb2, service_pb2_grpc

PARCELS = Path(__file__).resolve().parents[2] / "samples" / "parcels"
GOOD = [path.read_bytes() for path in sorted((PARCELS / "train" / "good").iterdir())]
TEST = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.max_send_message_length", 2**26)]
if TYPE_CHECKING:
    Stub: TypeAlias = service_pb2_grpc.PatchCoreServiceAsyncStub
else:
    Stub = service_pb2_grpc.PatchCoreServiceStub

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ResourceUse:
    """Resources of the server's process, or of all its processes together."""

    rss_mib: float
    open_files: int
    threads: int


class Server:
    """`patchserve-server serve` on a free port, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, ready_line: str, log: Path) -> None:
        words = ready_line.split(" listening on ")[1].split()
        self.process = process
        self.address = words[0]  # of gRPC
        self.http_url = words[2] if words[1] == "and" else ""
        self._log = log

    @property
    def log(self) -> str:
        return _text(self._log)

    def resource_use(self) -> ResourceUse:
        used = [_use_of(proc) for proc in self._processes()]
        return ResourceUse(
            sum(one.rss_mib for one in used), sum(one.open_files for one in used), sum(one.threads for one in used)
        )

    def cpu_s(self) -> float:
        """The processor time so far."""
        times = [(proc / "stat").read_text().rpartition(")")[2].split()[11:13] for proc in self._processes()]
        return sum(int(user) + int(system) for user, system in times) / os.sysconf("SC_CLK_TCK")

    def _processes(self) -> list[Path]:
        """All of them: a server with several fronts has some."""
        proc = Path(f"/proc/{self.process.pid}")
        children = (proc / "task" / proc.name / "children").read_text().split()
        return [proc, *(Path(f"/proc/{child}") for child in children)]

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)

    async def kill(self) -> None:
        """Kill all of its processes at once."""
        if self.process.returncode is None:
            pids = [int(proc.name) for proc in self._processes()]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)
            while any(map(_is_alive, pids)):  # noqa: ASYNC110 - children of others: no event announces their end
                await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _use_of(proc: Path) -> ResourceUse:
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    rss_mib = int(status["VmRSS"].split()[0]) / 1024
    return ResourceUse(rss_mib, len(list((proc / "fd").iterdir())), int(status["Threads"]))


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


@asynccontextmanager
async def server(*flags: str, cores: set[int] | None = None) -> AsyncIterator[Server]:
    """Run a server on these processor cores; None means all."""
    with tempfile.NamedTemporaryFile() as log:
        command = [str(Path(sys.executable).parent / "patchserve-server"), "serve"]
        command += ["--backbone", "efficientnet_lite2", "--port", "0", *flags]
        pinned = None if cores is None else partial(os.sched_setaffinity, 0, cores)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, preexec_fn=pinned
        )
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)).decode()
        if " listening on " not in line:
            raise RuntimeError(f"The server did not start: {_text(Path(log.name))}")
        running = Server(process, line, Path(log.name))
        try:
            yield running
        finally:
            await running.kill()


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Stub]:
    """A stub with its own connection."""
    async with aio.insecure_channel(address, [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield service_pb2_grpc.PatchCoreServiceStub(channel)


async def load(
    stub: Stub,
    reference_id: str = "",
    images: list[bytes] | None = None,
    metadata: list[tuple[str, str]] | None = None,
) -> reference_pb2.Reference:
    request = reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=images or GOOD[:1])
    return (await stub.LoadReference(request, metadata=metadata)).reference


def reason_of(error: aio.AioRpcError) -> str:
    """The reason in the ErrorInfo of the error, else its gRPC code."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return reason_in(status_pb2.Status.FromString(value)) or error.code().name
    return error.code().name


def reason_in(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    detail: any_pb2.Any
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def progress() -> Progress:
    """A progress bar that only shows on a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, disable=not sys.stderr.isatty(), transient=True)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


Result = dict[str, Any]
