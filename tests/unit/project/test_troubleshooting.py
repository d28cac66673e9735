"""docs/troubleshooting.md has every reason, and quotes messages that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
PAGE = (REPO / "docs" / "troubleshooting.md").read_text()
TABLE = (REPO / "docs" / "errors.md").read_text()
REASONS = re.findall(r"^\| ([A-Z_]+) \| [A-Z_]+ \| ?\w* ?\|", TABLE, re.MULTILINE)
PARAGRAPHS = dict(re.findall(r"^### ([A-Z_]+)\n(.+?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
QUOTES = [" ".join(line.split()) for line in re.findall(r"^> (.+)$", PAGE, re.MULTILINE)]


def test_every_reason_has_a_paragraph() -> None:
    assert len(REASONS) > 40
    assert sorted(PARAGRAPHS) == sorted(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_a_paragraph_has_the_message_why_it_comes_and_what_to_do(reason: str) -> None:
    text = PARAGRAPHS[reason]
    assert re.search(r"^> .+\n(?:.|\n)*\*\*Why\.\*\* .+(?:.|\n)*\*\*What to do\.\*\* .+", text, re.MULTILINE), text


def texts(node: ast.AST) -> Iterator[str]:
    """The strings in a file of Python; what an f-string or `format` fills in is a hole, a zero byte."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in child.values)  # type: ignore[misc]
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield re.sub(r"\{\w+\}", "\0", child.value)
        yield from texts(child)


def test_the_parts_of_every_quoted_message_are_in_the_code() -> None:
    """An ellipsis stands for anything."""
    sources = [path for folder in ("server", "client") for path in (REPO / folder).rglob("*.py")]
    code = "\n".join(text for path in sources for text in texts(ast.parse(path.read_text())))
    assert QUOTES
    parts = {part: quote for quote in QUOTES for part in re.split(r" ?… ?", quote) if part}
    assert not {part: quote for part, quote in parts.items() if part not in code}
