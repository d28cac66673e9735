"""The commands of docs/small-defects.md run with a real server, and its figures are those of the backbones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.harness import ServerProcess

from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "small-defects.md").read_text()
TOOLS = Path(sys.executable).parent
BLOCKS: list[str] = re.findall(r"^```sh\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the samples, like a checkout."""
    path = tmp_path_factory.mktemp("small-defects")
    (path / "samples").symlink_to(REPO / "samples")
    return path


@pytest.mark.parametrize("block", BLOCKS, ids=["larger", "tiles", "others", "sweep"])
def test_the_commands_of_the_page_run(block: str, server: ServerProcess, folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PATCHSERVE_SERVER": server.address}
    for command in block.splitlines():
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if " infer " in command:
            assert "2 anomalous" in done.stdout, done.stdout
        if "--sweep" in command:
            assert "patchserve reference load" in done.stdout, "it ends with the command of its choice"
            assert (folder / "sweep.html").stat().st_size > 10_000


def test_the_patches_of_the_page_are_those_of_the_backbone() -> None:
    rows = re.findall(r"^\| (\d+) x (\d+)(?:, tiles of \d+)? \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert len(rows) == 7
    lite = BACKBONES["efficientnet_lite2"]
    for width, height, patches in rows:
        assert lite.patches_of(InputShape(int(height), int(width))) == int(patches.replace(",", ""))
    wide, square = BACKBONES["wide_resnet50_2"], InputShape.square()
    assert wide.patches_of(square) == 4 * lite.patches_of(square)
