"""A release writes the same version everywhere and keeps all notes of the changelog."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A feature.

## [0.1.0] - 2026-01-31

- The start.
"""


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPO / "tools"))
    return importlib.import_module("release")


def test_a_release_moves_the_notes_under_the_new_version(release: Any) -> None:
    cut = release.cut_changelog(CHANGELOG, "0.2.0", "2026-02-28")
    assert cut == CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n## [0.2.0] - 2026-02-28\n")


@pytest.mark.parametrize(
    ("version", "changelog", "expected"),
    [
        ("0.1.0", CHANGELOG, "already in the changelog"),
        ("v0.2.0", CHANGELOG, "x.y.z"),
        ("0.2", CHANGELOG, "x.y.z"),
        ("0.2.0", CHANGELOG.replace("### Added\n\n- A feature.\n", ""), "nothing is listed"),
        ("0.2.0", "# Changelog\n", "nothing is listed"),
    ],
)
def test_an_invalid_release_is_refused(release: Any, version: str, changelog: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        release.cut_changelog(changelog, version, "2026-02-28")


def test_every_file_has_the_version_of_pyproject(release: Any) -> None:
    version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    named = {name: re.findall(pattern, (REPO / name).read_text()) for name, pattern in release.VERSION_PATTERNS.items()}
    twice = {"client/node/package-lock.json": 2, "deploy/helm/patchserve/Chart.yaml": 2}
    expected_counts = dict.fromkeys(named, 1) | twice
    assert named == {name: [version] * count for name, count in expected_counts.items()}


def test_a_release_writes_the_version_and_the_notes_into_all_files(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*release.VERSION_PATTERNS, "CHANGELOG.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CHANGELOG if name == "CHANGELOG.md" else (REPO / name).read_text())
    monkeypatch.setattr(release, "REPO", tmp_path)
    release.main("987.6.5")
    for name, pattern in release.VERSION_PATTERNS.items():
        assert set(re.findall(pattern, (tmp_path / name).read_text())) == {"987.6.5"}, name
        changed = (tmp_path / name).read_text().splitlines()
        before = (REPO / name).read_text().splitlines()
        assert [new for new, old in zip(changed, before, strict=True) if new != old and "987.6.5" not in new] == [], (
            name
        )
    assert re.search(r"^## \[987\.6\.5\] - \d{4}-\d\d-\d\d$", (tmp_path / "CHANGELOG.md").read_text(), re.MULTILINE)
