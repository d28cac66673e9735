"""The commands and programs of the README run with a real server. test_http_page.py runs those over HTTP."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.harness import ServerProcess

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text()
ADDRESS = "localhost:50051"
TOOLS = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.+?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the samples, like a checkout."""
    path = tmp_path_factory.mktemp("readme")
    (path / "samples").symlink_to(REPO / "samples")
    (path / ".venv").symlink_to(TOOLS.parent)
    return path


def run(command: list[str], folder: Path, address: str) -> str:
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PATCHSERVE_SERVER": address}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("default_reference")
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_run(number: int, server: ServerProcess, folder: Path) -> None:
    code = blocks("python")[number]
    assert ADDRESS in code
    if number:  # each but the first one asks about the reference that the first one loads
        run([sys.executable, "-c", blocks("python")[0].replace(ADDRESS, server.address)], folder, server.address)
    printed = run([sys.executable, "-c", code.replace(ADDRESS, server.address)], folder, server.address)
    assert printed
    assert "failed" not in printed
    assert "anomalous" in printed or number


def test_the_first_shell_example_runs_as_it_is_pasted(folder: Path) -> None:
    """In a shell that knows nothing of the environment; only the port is another one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PATCHSERVE_")}
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != TOOLS)
    own_port = {"PATCHSERVE_SERVER": f"localhost:{port}", "PATCHSERVE_PORT": str(port)}
    done = subprocess.run(
        ["bash", "-e"],
        input=blocks("sh")[0].replace("--backbone auto", "--backbone efficientnet_lite2"),  # needs no download
        cwd=folder,
        env={**clean, **own_port, "PATH": path},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Loaded default" in done.stdout
    assert list((folder / "overlays").rglob("*_overlay.png"))
    assert (folder / "evaluation" / "roc.png").exists()
