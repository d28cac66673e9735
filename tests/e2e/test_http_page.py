"""The examples of docs/http.md and of the README over HTTP run with a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.harness import server_process
from fakes.programs import program

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "http.md").read_text()
README = (REPO / "README.md").read_text()
ADDRESS = "localhost:8080"


def blocks(text: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return [block for block in found if ADDRESS in block]


def commands(text: str) -> list[str]:
    return [line for block in blocks(text, "sh") for line in block.replace("\\\n", "").splitlines() if "curl" in line]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """HOST:PORT of a server with the sample parcels as the reference `default`."""
    preload = REPO / "samples" / "parcels" / "train" / "good"
    with server_process("--http-port", "0", "--preload", str(preload)) as server:
        yield server.http_url.removeprefix("http://")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the samples, like a checkout."""
    (tmp_path / "samples").symlink_to(REPO / "samples")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [PAGE, README], ids=["http.md", "README"])
def test_the_commands_run(page: str, address: str, folder: Path) -> None:
    program("curl")
    assert commands(page)
    for command in commands(page):
        failing = command.replace(ADDRESS, address).replace("curl ", "curl --fail-with-body --silent --show-error ")
        printed = run(["bash", "-e", "-o", "pipefail", "-c", failing], folder)
        if "-o " in command:
            assert (folder / "overlay.png").read_bytes().startswith(b"\x89PNG")
        else:
            assert json.loads(printed)


def test_the_programs_run(address: str, folder: Path) -> None:
    documented, streaming = (code.replace(ADDRESS, address) for code in blocks(PAGE, "python"))
    assert "000.jpg True" in run([sys.executable, "-c", streaming], folder)
    damage_percentage, is_anomalous = run([sys.executable, "-c", documented], folder).split()
    assert 0 < float(damage_percentage) < 100
    assert is_anomalous == "True"
