"""Child processes: servers that are measured, and workers that measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_START_TIMEOUT_S = 900  # anomalib's export takes more than a minute
_STOP_TIMEOUT_S = 30
_SAMPLE_INTERVAL_S = 0.1

Handler = Callable[[dict[str, Any]], Mapping[str, Any]]


class NotStartedError(Exception):
    """A process ended or did not start in time; the message is the end of its log."""


class RequestFailedError(Exception):
    """A worker could not do what was requested; the message is its own."""


@contextmanager
def run_process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for its input and output, and its standard error in a file."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def read_first_line(process: subprocess.Popen[str], log: Path) -> str:
    """The first line of a process's output, which says that it is ready.

    Raises:
        NotStartedError: the process ended first.
    """
    assert process.stdout is not None
    watchdog = threading.Timer(_START_TIMEOUT_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    if not line:
        process.wait()  # until its log is complete
        raise NotStartedError(last_line(log))
    return line


def last_line(log: Path) -> str:
    return next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "its log is empty")


def wait_for_log(log: Path, text: str, times: int, process: subprocess.Popen[str]) -> str:
    """The whole log, as soon as it contains the text so many times.

    Raises:
        NotStartedError: the process ended, or it took too long.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while (content := log.read_text()).count(text) < times:
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStartedError(last_line(log))
        time.sleep(0.1)
    return content


class Worker:
    """A program of this package that answers each line of JSON with one line; its first line describes itself."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.pid = process.pid
        self._process, self._log = process, log
        self.description: dict[str, Any] = json.loads(read_first_line(process, log))

    def request(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its response.

        Raises:
            RequestFailedError: the worker failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        response: dict[str, Any] = json.loads(line) if line else {"error": last_line(self._log)}
        if "error" in response:
            raise RequestFailedError(response["error"])
        return response


@contextmanager
def start_worker(module: str, *arguments: str, log: Path) -> Iterator[Worker]:
    """Run a module as a worker.

    Raises:
        NotStartedError: it did not start.
    """
    with run_process([sys.executable, "-m", module, *arguments], log) as process:
        yield Worker(process, log)


def serve_requests(start: Callable[[], tuple[Mapping[str, Any], Handler]]) -> None:
    """The other end of a Worker, until its input ends. Other output goes to standard error."""
    with os.fdopen(os.dup(1), "w", buffering=1) as replies:
        os.dup2(2, 1)
        description, handle = start()
        replies.write(json.dumps(description) + "\n")
        for line in sys.stdin:
            try:
                response = handle(json.loads(line))
            except Exception as error:  # noqa: BLE001 - reported to the parent process
                response = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(response) + "\n")


@dataclass
class Usage:
    """Processor time and memory of a process and its children while they were measured."""

    cpu_s: float = 0.0
    peak_rss_mib: float = 0.0


@contextmanager
def measure_usage(pid: int) -> Iterator[Usage]:
    """The usage is complete when the block ends. Memory is sampled; memory that two processes share counts twice."""
    usage, ended = Usage(), threading.Event()
    parent = psutil.Process(pid)
    processes = [parent, *parent.children(recursive=True)]

    def sample_memory() -> None:
        while True:
            rss_mib = sum(process.memory_info().rss for process in processes) / 2**20
            usage.peak_rss_mib = max(usage.peak_rss_mib, rss_mib)
            if ended.wait(_SAMPLE_INTERVAL_S):
                return

    def cpu_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    sampler = threading.Thread(target=sample_memory)
    cpu_s_before = cpu_s()
    sampler.start()
    try:
        yield usage
    finally:
        usage.cpu_s = cpu_s() - cpu_s_before
        ended.set()
        sampler.join()
