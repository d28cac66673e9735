"""Processes that are measured or that measure: started, asked, watched and stopped."""

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

_START_TIMEOUT_S = 900  # an export of anomalib's takes a minute and more
_STOP_TIMEOUT_S = 30
_SAMPLE_S = 0.1

Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


class NotStartedError(Exception):
    """A process ended, or was silent for too long; the message is the end of its log."""


class FailedError(Exception):
    """A process could not do what it was asked; the message is its own."""


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with its standard error in a file; its standard output and input are pipes."""
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


def first_line(process: subprocess.Popen[str], log: Path) -> str:
    """The line that says that a process is ready.

    Raises:
        NotStartedError: it ended first.
    """
    assert process.stdout is not None
    watchdog = threading.Timer(_START_TIMEOUT_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    if not line:
        process.wait()  # until its log is whole
        raise NotStartedError(last_line(log))
    return line


def last_line(log: Path) -> str:
    return next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "its log is empty")


def wait_for(log: Path, words: str, times: int, process: subprocess.Popen[str]) -> str:
    """A log once it holds the words so many times.

    Raises:
        NotStartedError: the process ended, or it took too long.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while (text := log.read_text()).count(words) < times:
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStartedError(last_line(log))
        time.sleep(0.1)
    return text


class Worker:
    """A program of this package that answers each line of JSON with one; its first line says what it is."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.pid = process.pid
        self._process, self._log = process, log
        self.about: dict[str, Any] = json.loads(first_line(process, log))

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer.

        Raises:
            FailedError: there is none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": last_line(self._log)}
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer


@contextmanager
def worker(module: str, *arguments: str, log: Path) -> Iterator[Worker]:
    """Raises NotStartedError where it does not come up."""
    with running([sys.executable, "-m", module, *arguments], log) as process:
        yield Worker(process, log)


def answer_questions(start: Callable[[], tuple[Mapping[str, Any], Answer]]) -> None:
    """The other end of a Worker, until its input ends. What others print goes to standard error."""
    with os.fdopen(os.dup(1), "w", buffering=1) as replies:
        os.dup2(2, 1)
        about, answer = start()
        replies.write(json.dumps(about) + "\n")
        for line in sys.stdin:
            try:
                found = answer(json.loads(line))
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                found = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(found) + "\n")


@dataclass
class Usage:
    """What a process and its children took while they were watched."""

    cpu_s: float = 0.0
    peak_rss_mib: float = 0.0


@contextmanager
def watched(pid: int) -> Iterator[Usage]:
    """The usage is complete when the block ends. Memory is sampled: what two processes share counts twice."""
    usage, ended = Usage(), threading.Event()
    parent = psutil.Process(pid)
    tree = [parent, *parent.children(recursive=True)]

    def sample() -> None:
        while True:
            usage.peak_rss_mib = max(usage.peak_rss_mib, sum(one.memory_info().rss for one in tree) / 2**20)
            if ended.wait(_SAMPLE_S):
                return

    def cpu_s() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in tree)

    sampler = threading.Thread(target=sample)
    began_s = cpu_s()
    sampler.start()
    try:
        yield usage
    finally:
        usage.cpu_s = cpu_s() - began_s
        ended.set()
        sampler.join()
