"""The commands and programs of the README run with a real server."""

from __future__ import annotations

import os
import re
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


def commands() -> list[str]:
    """Every command of the shell examples whose tool the environment has."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if not line.startswith("grpcurl ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the samples, like a checkout."""
    path = tmp_path_factory.mktemp("readme")
    (path / "samples").symlink_to(REPO / "samples")
    return path


def run(command: list[str] | str, folder: Path, address: str) -> str:
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PATCHSERVE_SERVER": address}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        shell=isinstance(command, str),
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


@pytest.mark.usefixtures("default_reference")
def test_the_shell_examples_run(server: ServerProcess, folder: Path) -> None:
    first, *rest = commands()
    assert first.startswith("patchserve reference load")
    assert "Loaded default" in run(first, folder, server.address)
    for command in rest:
        assert run(command.replace(ADDRESS, server.address), folder, server.address), command
    assert list((folder / "overlays").glob("*_overlay.png"))
