"""On a system without what only Unix has, all modules can be imported, and the store and the tokens work.

Nothing of this project was ever run on Windows: docs/windows.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

TESTS = Path(__file__).resolve().parents[2]
REPO = TESTS.parent
LINES = """
import asyncio, signal, sys
from fakes.windows import become_windows, own_modules
become_windows()
assert len(list(own_modules())) > 250
{}
print("done")
"""


def run_python(code: str) -> None:
    path = os.pathsep.join([str(TESTS), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", LINES.format(code)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["done"], done.stdout + done.stderr


def test_all_modules_can_be_imported_and_what_is_left_out_is_said() -> None:
    run_python(
        """
from patchserve_server.access.addresses import private_socket_file
from patchserve_server.bootstrap import serve
from patchserve_server.bootstrap.limits import http_connections
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.clock import is_synchronized
from patchserve_server.system.limits import machine_bytes, open_files_limit
from patchserve_server.system.signals import STOP_SIGNALS, handle, handle_reload

assert (open_files_limit(), machine_bytes(), is_synchronized()) == (None, None, None)
assert http_connections(Settings(max_calls=7)) == 71
try:
    with private_socket_file("unix:C:/x.sock"):
        raise AssertionError
except StartupError as error:
    assert "There are no Unix sockets here" in error.message

async def try_signals():
    try:
        await serve(Settings(fronts="2"), print, Settings)
        raise AssertionError
    except StartupError as error:
        assert "need Linux" in error.message
    stopped = asyncio.Event()
    handle(STOP_SIGNALS[1], stopped.set)
    handle_reload(stopped.clear)
    signal.raise_signal(STOP_SIGNALS[1])
    await stopped.wait()

asyncio.run(try_signals())
"""
    )


def test_the_store_and_the_token_file_keep_their_promises_there() -> None:
    tests = ["contract/test_reference_store.py", "unit/access/test_tokens.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "fakes.windows", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-k", "not moto and not seaweedfs",  # servers for Unix
         *(str(TESTS / test) for test in tests)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}, cwd=REPO,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


@pytest.mark.parametrize("script", ["setup.ps1", "run.ps1"])
def test_the_scripts_of_powershell_can_be_parsed(script: str) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    root = parser.parse((REPO / script).read_bytes()).root_node
    assert not root.has_error, faults(root)
    assert parser.parse(b"if (").root_node.has_error, "the parser finds faults"


def faults(node: tree_sitter.Node) -> list[str]:
    if node.is_error or node.is_missing:
        return [f"line {node.start_point.row + 1}: {(node.text or b'').decode()[:60]}"]
    return [fault for child in node.children for fault in faults(child)]


def test_the_scripts_do_what_make_does() -> None:
    makefile, run = (REPO / "Makefile").read_text(), (REPO / "run.ps1").read_text()
    for command in ("serve --backbone auto --http-port 8080", "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"):
        assert command in run
        assert command.replace("-n 2", "-n $(WORKERS)") in makefile
    assert "WORKERS ?= 2" in makefile
    setup = (REPO / "setup.ps1").read_text()
    for part in ("install_lock.py", "--torch-index", "--torch-hashes", "requirements/dev.txt", "--no-build-isolation"):
        assert part in makefile
        assert part in setup.replace("\\", "/")
    assert re.search(r'-File "%~dp0setup\.ps1" %\*\r\n', (REPO / "setup.bat").read_bytes().decode())
