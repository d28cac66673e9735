"""Runs the blocks of a tutorial in their order, as a reader would, and compares what they print with the page.

- `sh` blocks run in bash, in one folder with the samples; `python` blocks run as programs. A block with a title
  becomes a file of this name.
- A `text` block after one of these is its output. In it, `…` stands for anything, and numbers may differ a little:
  another processor rounds differently. Times may be any, and so may memory: it depends on which search is the fastest.
- Blocks that are indented are not run: the server and its commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TUTORIALS = REPO / "docs" / "tutorials"
TOOLS = Path(sys.executable).parent
TIMEOUT_S = 120
GRPC, HTTP, METRICS, PROMETHEUS = "localhost:50051", "localhost:8080", "localhost:9464", "9090"  # on the pages
_BLOCK = re.compile(r"^```(sh|python|yaml|text)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_TOLERANCE = 0.05  # of a number
_ROUNDING = 0.03


@dataclass(frozen=True)
class Block:
    """A program or commands of a page, and the output that it shows; empty: none."""

    language: str
    title: str
    code: str
    shown: str


def blocks_of(name: str) -> list[Block]:
    found: list[Block] = []
    for language, title, code in _BLOCK.findall((TUTORIALS / name).read_text()):
        if language == "text":
            assert found, f"{name}: an output without a program"
            found[-1] = Block(found[-1].language, found[-1].title, found[-1].code, code)
        else:
            found.append(Block(language, title, code, ""))
    return found


def run_tutorial(name: str, addresses: Mapping[str, str], folder: Path) -> None:
    """Run all blocks in a folder that looks like a checkout.

    Args:
        name: of the file.
        addresses: an address of the page, and the one to use in its place.
        folder: an empty one.

    Raises:
        AssertionError: a block failed, or printed something else than the page shows.
    """
    for entry in ("deploy", "docs", "samples"):
        (folder / entry).symlink_to(REPO / entry)
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    environment |= {"PATCHSERVE_SERVER": addresses[GRPC]}
    for block in blocks_of(name):
        code = block.code
        for shown, used in addresses.items():
            code = code.replace(shown, used)
        if block.title:
            (folder / block.title).write_text(code)
            continue
        program = ["bash", "-e", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, code],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}"
        if block.shown:
            assert_same_output(block.shown, done.stdout)


def assert_same_output(shown: str, printed: str) -> None:
    """Compare what a page shows with what was printed.

    Raises:
        AssertionError: with both texts.
    """
    expected, actual = _lines(shown), _lines(printed)
    while expected:
        line, *expected = expected
        if line == "…":  # any number of lines
            following = expected[0] if expected else ""
            while actual and not (following and _is_same(following, actual[0])):
                actual = actual[1:]
            continue
        assert actual, f"The page also shows {line!r}. Printed:\n{printed}"
        assert _is_same(line, actual[0]), f"The page shows\n{line}\nbut printed was\n{actual[0]}\nin\n{printed}"
        actual = actual[1:]
    assert not actual, f"Printed beside what the page shows:\n{actual}"


def _lines(text: str) -> list[str]:
    """The lines that are not empty, with single spaces and without the times of tables."""
    lines: list[str] = []
    heads: list[str] = []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if "ms" in cells:
            heads = cells
        elif heads and len(cells) == len(heads):
            cells[heads.index("ms")] = "-"
        lines.append(" ".join(" ".join(cells).split()))
    return [line for line in lines if line]


def _is_same(shown: str, printed: str) -> bool:
    words = _NUMBER.split(shown)
    pattern = r"(-?\d+(?:,\d{3})*(?:\.\d+)?)".join(re.escape(part).replace("…", ".*") for part in words)
    if (match := re.fullmatch(pattern, printed)) is None:
        return False
    pairs = zip(_NUMBER.findall(shown), match.groups(), words[1:], strict=True)
    return all(_is_close(a, b) or re.match(r" m?s\b|/s\b| MiB of memory\b", unit) for a, b, unit in pairs)


def _is_close(shown: str, printed: str) -> bool:
    a, b = (float(text.replace(",", "")) for text in (shown, printed))
    return abs(a - b) <= max(_ROUNDING, _TOLERANCE * abs(a)) if "." in shown else a == b
