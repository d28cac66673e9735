"""The README and the pages of settings and backbones agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from patchserve_server.config import Settings
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES

REPO = Path(__file__).resolve().parents[3]
README = (REPO / "README.md").read_text()
BACKBONES_PAGE = (REPO / "docs" / "backbones.md").read_text()
CONFIGURATION = (REPO / "docs" / "configuration.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]


def shown_default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "the number of cores"
    return "" if value is None else f"`{value}`"


def setting_rows() -> dict[str, str]:
    """Flag -> its expected row in docs/configuration.md."""
    rows = {}
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        description = " ".join((field.description or "").split())
        rows[flag] = f"| `{flag}` | {shown_default(field)} | {description} |".replace("|  |", "| |")
    return rows


def test_the_page_of_settings_lists_every_setting_with_its_default_and_description() -> None:
    written = re.findall(r"^\| `--.+\|$", CONFIGURATION, re.MULTILINE)
    assert written == list(setting_rows().values())


def test_every_flag_and_variable_in_the_readme_exists() -> None:
    serve_lines = re.findall(r"patchserve-server serve(.*)$", README, re.MULTILINE)
    flags = set(re.findall(r"--[a-z][a-z-]+", " ".join(serve_lines)))
    about_the_server = section("Running it") + BACKBONES_PAGE.partition("## Many reference images")[0]
    flags |= set(re.findall(r"`(--[a-z][a-z-]+)", about_the_server))
    assert flags
    assert flags <= set(setting_rows())
    variables = set(re.findall(r"PATCHSERVE_([A-Z_]*[A-Z])", README + CONFIGURATION))
    assert {name.lower() for name in variables} <= set(Settings.model_fields) | {
        "config",
        "server",
        "test_data",
        "token",
    }


def test_the_page_of_backbones_lists_their_patches() -> None:
    rows = re.findall(r"^\| `(\w+)`.*? \| (\d+) x (\d+) \|", BACKBONES_PAGE, re.MULTILINE)
    written = {name: (int(patches), int(length)) for name, patches, length in rows}
    shape = InputShape.square()
    assert written == {name: (spec.patches_of(shape), spec.feature_dim) for name, spec in BACKBONES.items()}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z][a-z-]*)", README))))
def test_every_make_target_in_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (REPO / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150
