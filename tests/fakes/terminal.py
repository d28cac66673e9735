"""The command `patchserve` in a process of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

ENTRY = "import sys; sys.argv[0] = 'patchserve'; from patchserve_client.cli import main; main()"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", ENTRY, *map(str, arguments)]


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What a command that ends well prints on a terminal 80 columns wide."""
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), stdout=writing, stderr=writing, env={**os.environ, "TERM": "xterm", **environment}
    )
    os.close(writing)
    shown = b""
    while True:
        try:
            piece = os.read(reading, 65536)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(reading)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()
