"""Programs that tests run, and that a machine may lack."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of a program. Without it the test is skipped, except in CI."""
    found = shutil.which(
        name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
    )
    if found is None and "CI" in os.environ:
        pytest.fail(f"CI runs the tests of {name}, which is not installed")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    """A port that is free now: neither proxy reports a port of its own choice."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
