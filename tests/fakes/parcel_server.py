"""A real server in a process of its own, with the sample parcels as a reference. Needs nothing but Python here."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PARCELS = REPO / "samples" / "parcels"
START_TIMEOUT_S = 90


def server_command() -> str:
    command = shutil.which("patchserve-server")
    assert command is not None, "no patchserve-server on the PATH"
    return command


@contextmanager
def running(*flags: str) -> Iterator[str]:
    """A server with the sample parcels as the reference `default`; yields its address of gRPC."""
    with running_with_http(*flags) as (address, _):
        yield address


@contextmanager
def running_with_http(*flags: str) -> Iterator[tuple[str, str]]:
    """The same; yields its address of gRPC and, with the flags `--http-port 0`, its URL of HTTP."""
    command = [server_command(), "serve", "--backbone", "efficientnet_lite2", "--port", "0", "--drain-delay-s", "0"]
    command += ["--preload", str(PARCELS / "train" / "good"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
        watchdog.cancel()
        assert " listening on " in line
        words = line.split(" listening on ")[1].split()
        yield words[0], words[2] if words[1] == "and" else ""
    finally:
        watchdog.cancel()
        process.terminate()
        assert process.wait(40) == 0
        process.stdout.close()
