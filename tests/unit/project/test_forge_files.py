"""The files for the forge and for editors are valid and agree with the Makefile."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[3]
MAKEFILE = (REPO / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
YAML_FILES = sorted(path.relative_to(REPO).as_posix() for path in (REPO / ".github").rglob("*.yml"))
JOBS: dict[str, Any] = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())["jobs"]
GENERATED = ("protos/python/patchserve/v1/stream_pb2.py", "docs/protocol.md", "requirements/dev.txt")


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def python_versions() -> list[str]:
    (versions,) = re.findall(r"^PYTHONS := (.+)$", MAKEFILE, re.MULTILINE)
    return str(versions).split()


@pytest.mark.parametrize("name", YAML_FILES)
def test_every_file_for_the_forge_is_valid_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((REPO / name).read_text()), dict)


@pytest.mark.parametrize("name", [name for name in YAML_FILES if "/workflows/" in name])
def test_every_action_is_pinned_to_a_commit_and_names_its_version(name: str) -> None:
    actions = re.findall(r"^ *(?:- )?uses: (.+)$", (REPO / name).read_text(), re.MULTILINE)
    assert actions
    assert not [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)]


def test_the_workflow_runs_the_same_commands_as_a_developer() -> None:
    assert commands(JOBS["ci"]) == [".ci/run"]
    assert commands(JOBS["python"]) == ["make test-python PYTHON=python${{ matrix.python }}"]


def test_every_supported_python_version_is_tested() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    claimed = re.findall(r"Python :: (\d\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    oldest = JOBS["ci"]["container"].removeprefix("python:").partition("-")[0]
    assert claimed == python_versions() == [oldest, *JOBS["python"]["strategy"]["matrix"]["python"]]
    assert project["requires-python"] == f">={oldest}"


@pytest.mark.parametrize("name", [".ci/run", ".devcontainer/devcontainer.json", "CONTRIBUTING.md", "docs/release.md"])
def test_every_make_target_that_is_named_exists(name: str) -> None:
    text = (REPO / name).read_text()
    named = set(re.findall(r"(?:\bmake |^step \".*\" )([a-z][a-z-]+)", text, re.MULTILINE))
    assert named
    assert named <= TARGETS


def test_the_devcontainer_uses_the_makefile_and_the_image_of_ci() -> None:
    text = re.sub(r"^\s*//.*$", "", (REPO / ".devcontainer/devcontainer.json").read_text(), flags=re.MULTILINE)
    settings = json.loads(text)
    assert settings["postCreateCommand"].startswith("make setup")
    assert settings["image"] == JOBS["ci"]["container"]


def test_generated_files_are_marked_as_generated() -> None:
    command = ["git", "check-attr", "linguist-generated", "eol", "--", *GENERATED, "Makefile"]
    attributes = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in attributes if "linguist-generated: set" in line] == [
        f"{name}: linguist-generated: set" for name in GENERATED
    ]
    assert len([line for line in attributes if line.endswith("eol: lf")]) == len(GENERATED) + 1


def test_every_path_in_the_contributing_guide_exists() -> None:
    guide = (REPO / "CONTRIBUTING.md").read_text()
    roots = (REPO, REPO / "server/patchserve_server", REPO / "client/patchserve_client")
    named = re.findall(r"`([\w./-]+(?:/|\.py|/[\w-]+))`", guide)
    assert named
    assert not [name for name in named if not any((root / name).exists() for root in roots)]
