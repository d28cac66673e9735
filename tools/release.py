"""Write a release into the files: `python tools/release.py 0.2.0`.

Cuts the changelog and sets the version in every file that names it. `make release` runs this; docs/release.md has the
other steps.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
UNRELEASED = "## [Unreleased]\n"

# File -> a pattern that matches the version there and nothing else.
VERSION_PATTERNS = {
    "pyproject.toml": r'(?m)(?<=^version = ")[^"]+',
    "client/node/package.json": r'(?m)(?<=^  "version": ")[^"]+',
    "client/node/package-lock.json": (
        r'(?<="name": "patchserve-client",\n  "version": ")[^"]+'
        r'|(?<="name": "patchserve-client",\n      "version": ")[^"]+'
    ),
    "client/node/README.md": r"(?<=patchserve-client-)[0-9.]+(?=\.tgz)",
    "docs/deployment/kubernetes.yaml": r"(?<=image: patchserve:)\S+",
    "deploy/helm/patchserve/Chart.yaml": r"(?m)(?<=^version: )\S+|(?<=^appVersion: )\S+",
}


def cut_changelog(changelog: str, version: str, date: str) -> str:
    """Move everything under *Unreleased* to a section of its own, `## [version] - date`.

    Raises:
        ValueError: the version is malformed or already released, or nothing is unreleased.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{version} is not a version; write it as x.y.z")
    if f"\n## [{version}]" in changelog:
        raise ValueError(f"{version} is already in the changelog")
    head, _, rest = changelog.partition(UNRELEASED)
    if not rest.partition("\n## [")[0].strip():
        raise ValueError("nothing is listed under Unreleased")
    return f"{head}{UNRELEASED}\n## [{version}] - {date}\n{rest}"


def main(version: str) -> None:
    """Change the files; nothing is written if the changelog cannot be cut."""
    changelog = REPO / "CHANGELOG.md"
    texts = {changelog: cut_changelog(changelog.read_text(), version, f"{datetime.now(UTC):%Y-%m-%d}")}
    for name, pattern in VERSION_PATTERNS.items():
        texts[REPO / name] = re.sub(pattern, version, (REPO / name).read_text())
    for path, text in texts.items():
        path.write_text(text)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ValueError as error:
        sys.exit(f"release: {error}")
