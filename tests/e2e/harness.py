"""A real server in its own process, and helpers that call it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from fakes.images import card, encoded
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from patchserve.v1 import reference_pb2, service_pb2_grpc

Stub = service_pb2_grpc.PatchCoreServiceStub

READY_TIMEOUT_S = 120  # other tests may have the cores
STOP_TIMEOUT_S = 40
CARDS = "cards"  # the reference of the fixture `cards`
MESSAGE_OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.max_send_message_length", 2**26)]


def addresses_in(ready_line: str) -> tuple[str, str]:
    """The address of gRPC, and the URL of the HTTP face; it is empty if there is none."""
    words = ready_line.split(" listening on ")[1].split()
    return words[0], words[2] if words[1] == "and" else ""


def metrics_url_in(ready_lines: str) -> str:
    """The URL that Prometheus scrapes; empty if there is none."""
    return ready_lines.rpartition("For Prometheus: ")[2].split()[0] if "For Prometheus: " in ready_lines else ""


class ServerProcess:
    """`patchserve-server serve`, with the embedded backbone and port 0 unless the flags say otherwise.

    After `wait_ready`, `address` is that of gRPC. With the flags `--http-port 0`, `http_url` is that of the HTTP face.
    """

    address: str
    http_url: str

    def __init__(
        self,
        *flags: str,
        command: str = "serve",
        program: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        line = [*(program or [str(Path(sys.executable).parent / "patchserve-server")]), command]
        line += ["--drain-delay-s", "0.1", "--backbone", "efficientnet_lite2", "--port", "0", *flags]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PATCHSERVE_")}
        environment |= variables or {}
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read_log, daemon=True)
        self._reading.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self._lines.extend(self.process.stderr)

    @property
    def log(self) -> str:
        """The log so far."""
        return "".join(self._lines)

    def wait_ready(self) -> str:
        """Return the bound address of gRPC."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        assert " listening on " in line, line + self.log
        self.address, self.http_url = addresses_in(line)
        return self.address

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal unless the process has ended; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code, after the process has ended and its whole log is read."""
        code = self.process.wait(STOP_TIMEOUT_S)
        self._reading.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def server_process(*flags: str) -> Iterator[ServerProcess]:
    """A server, as `until_stopped`."""
    with until_stopped(ServerProcess(*flags)) as server:
        yield server


P = TypeVar("P", bound=ServerProcess)


@contextmanager
def until_stopped(server: P) -> Iterator[P]:
    """The server when it is ready. At the end it must exit with code 0 and have logged no traceback."""
    try:
        server.wait_ready()
        yield server
    except BaseException:
        server.stop(signal.SIGKILL)
        raise
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@contextmanager
def connect(address: str) -> Iterator[Stub]:
    """A stub on a channel that takes large messages."""
    with grpc.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
        yield Stub(channel)


def load(stub: Stub, reference_id: str, image_count: int = 4, **fields: object) -> reference_pb2.Reference:
    """Loads drawn cards as a reference."""
    images = [encoded(card(seed)) for seed in range(image_count)]
    request = reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=images, **fields)  # type: ignore[arg-type]
    return stub.LoadReference(request).reference


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, object]]:
    """The gRPC code, the reason, and the other error details by type."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None, error
    details: dict[str, object] = {}
    for packed in status.details:
        kind = packed.type_url.rpartition(".")[2]
        details[kind] = message = getattr(error_details_pb2, kind)()
        packed.Unpack(message)
    info = details.pop("ErrorInfo")
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "patchserve.v1"
    return error.code(), info.reason, details
