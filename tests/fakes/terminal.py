"""The command `patchserve` in its own process, and its output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import TypeAlias

Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Runs a command line; returns exit code, stdout and stderr."""

ENTRY = "import sys; sys.argv[0] = 'patchserve'; from patchserve_command import main; main()"


def command(*arguments: object) -> list[str]:
    """The command line of a process that runs `patchserve`."""
    return [sys.executable, "-c", ENTRY, *map(str, arguments)]


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """The output of a command on a terminal with 80 columns. The command must exit with 0."""
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), stdout=writing, stderr=writing, env={**os.environ, "TERM": "xterm", **environment}
    )
    os.close(writing)
    output = b""
    while True:
        try:
            data = os.read(reading, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not data:
            break
        output += data
    os.close(reading)
    assert process.wait(30) == 0, output.decode()
    return output.decode()


def rows(stdout: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in stdout.splitlines()]
