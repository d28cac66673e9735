"""Promises about the files of the project."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[3]
PYPROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())
MAX_LINES = 350

# In parts, so that the test does not find this file.
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("work", "home", "root", "Users"))
REGISTRY_HOSTS = tuple(".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org")))


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file that git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so the files of the project are unknown")
    paths = (REPO / name for name in listing.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def python_sources(*folders: str) -> list[Path]:
    roots = [REPO / folder for folder in folders]
    return [path for path in project_files() if path.suffix == ".py" and any(root in path.parents for root in roots)]


def section_requirements() -> dict[str, list[Requirement]]:
    """Section of docs/dependencies.md -> the direct dependencies of pyproject.toml that belong there."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    groups = PYPROJECT["dependency-groups"]
    development = [line for group in groups.values() for line in group if isinstance(line, str)]
    sections = {
        "The client (base install)": PYPROJECT["project"]["dependencies"],
        "Extra `evaluate`": extras["evaluate"],
        "Extra `video`": extras["video"],
        "Extra `watch`": extras["watch"],
        "Extra `gpu`": extras["gpu"],
        "Extra `http`": extras["http"],
        "Extra `int8`": extras["int8"],
        "Extra `metrics`": extras["metrics"],
        "Extra `mqtt`": extras["mqtt"],
        "Extra `otel`": extras["otel"],
        "Extra `ray`": extras["ray"],
        "Extra `store`": extras["store"],
        "Extra `timm`": extras["timm"],
        "Extra `server`": extras["server"],
        "Development": development,
    }
    return {title: [Requirement(line) for line in lines] for title, lines in sections.items()}


def requirements_in(file_name: str) -> list[Requirement]:
    lines = (REPO / "requirements" / file_name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


PEERS = {"The peers' environment": requirements_in("peers.in")}
AUDIT = {"The audit's environment": requirements_in("audit.in")}
TRITON = {"The tritonclient's environment": requirements_in("triton.in")}
KSERVE = {"The kserve environment": requirements_in("kserve.in")}
DOCUMENTED = section_requirements() | PEERS | AUDIT | TRITON | KSERVE


@pytest.mark.parametrize(
    ("folder", "title"),
    [("client/node", "The clients in other languages"), ("tools/site", "The documentation site")],
)
def test_every_dependency_from_npm_is_documented_and_locked(folder: str, title: str) -> None:
    package = json.loads((REPO / folder / "package.json").read_text())
    section = (REPO / "docs/dependencies.md").read_text().split(f"\n## {title}\n")[1]
    rows = re.findall(r"^\| (\S+) \| \S.* \|$", section.split("\n## ")[0], re.MULTILINE)
    assert rows[2:] == [*package["dependencies"], *package.get("devDependencies", [])]
    lock = json.loads((REPO / folder / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)


def names(requirements: Iterable[Requirement]) -> list[str]:
    return sorted(canonicalize_name(requirement.name) for requirement in requirements)


def locked(file_name: str) -> dict[str, str]:
    pins = re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", (REPO / "requirements" / file_name).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("title", DOCUMENTED)
def test_every_direct_dependency_is_documented(title: str) -> None:
    page = (REPO / "docs/dependencies.md").read_text()
    section = page.split(f"\n## {title}\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    rows = re.findall(r"^\| ([a-z][a-z0-9-]+) \| (\S.*) \|$", section, re.MULTILINE)
    assert [name for name, _ in rows if name != "distribution"] == names(DOCUMENTED[title])


@pytest.mark.parametrize(
    ("lock", "titles"),
    [
        ("dev.txt", list(section_requirements())),
        ("client.txt", ["The client (base install)"]),
        ("server.txt", ["The client (base install)", "Extra `server`"]),
        ("peers.txt", ["The client (base install)", "Extra `evaluate`", "Extra `server`", *PEERS]),
        ("audit.txt", list(AUDIT)),
        ("triton.txt", ["The client (base install)", *TRITON]),
        ("kserve.txt", list(KSERVE)),
    ],
)
def test_the_locks_satisfy_the_ranges(lock: str, titles: list[str]) -> None:
    pins = locked(lock)
    for title in titles:
        for requirement in DOCUMENTED[title]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_peers_run_on_the_same_torch() -> None:
    ours, theirs = locked("dev.txt"), locked("peers.txt")
    for name in ("torch", "torchvision", "numpy", "pillow", "scikit-learn"):
        assert theirs[name] == ours[name], name


def test_the_oldest_lock_holds_the_lower_bounds() -> None:
    pins = locked("oldest.txt")
    for requirement in section_requirements()["The client (base install)"]:
        lower_bound = next(bound.version for bound in requirement.specifier if bound.operator == ">=")
        pin = pins[canonicalize_name(requirement.name)]
        assert pin in (lower_bound, f"{lower_bound}.0"), requirement


def third_party_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            modules = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        for module in modules:
            top = module.split(".")[0]
            if top not in sys.stdlib_module_names and not top.startswith("patchserve"):
                yield module


@pytest.mark.parametrize(
    ("folder", "titles"),
    [
        (
            "client/patchserve_client",
            [
                "The client (base install)",
                "Extra `evaluate`",
                "Extra `mqtt`",
                "Extra `otel`",
                "Extra `video`",
                "Extra `watch`",
            ],
        ),
        (
            "server/patchserve_server",
            [
                "The client (base install)",
                *(
                    f"Extra `{name}`"
                    for name in ("server", "gpu", "http", "int8", "metrics", "otel", "ray", "store", "timm")
                ),
            ],
        ),
    ],
)
def test_code_imports_only_what_is_declared(folder: str, titles: list[str]) -> None:
    declared = {name for title in titles for name in names(section_requirements()[title])}
    providers = importlib.metadata.packages_distributions()
    sources = python_sources(folder)
    assert sources
    for path in sources:
        for module in third_party_imports(path):
            provided_by = {canonicalize_name(name) for name in providers[module.split(".")[0]]}
            assert provided_by & declared, f"{path.relative_to(REPO)} imports {module}"


def test_every_declared_dependency_is_imported() -> None:
    providers = importlib.metadata.packages_distributions()
    modules = {module for path in python_sources("client", "server") for module in third_party_imports(path)}
    imported = {canonicalize_name(name) for module in modules for name in providers[module.split(".")[0]]}
    declared = {
        name for title, lines in section_requirements().items() if title != "Development" for name in names(lines)
    }
    assert declared <= imported


def test_no_source_file_is_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_sources("server", "client")}
    assert lengths
    assert not {str(path.relative_to(REPO)): lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_no_file_names_a_machine_path_or_a_registry_host() -> None:
    violations = []
    for path in project_files():
        text = path.read_bytes().decode(errors="replace")
        violations += [f"{path.relative_to(REPO)}: {word}" for word in MACHINE_PATHS + REGISTRY_HOSTS if word in text]
    assert not violations


def test_every_link_between_pages_has_a_target() -> None:
    broken = []
    for page in (path for path in project_files() if path.suffix == ".md"):
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        files = [target for target in targets if "://" not in target]
        broken += [f"{page.relative_to(REPO)} -> {target}" for target in files if not (page.parent / target).exists()]
    assert not broken


def test_files_that_pages_name_exist() -> None:
    """In code spans and blocks: every Python file, by the end of its path, and every path below a folder of ours."""
    roots = (REPO, REPO / "server/patchserve_server")
    below = [path.relative_to(root).parts for root in roots for path in project_files() if root in path.parents]
    folders = {parts[0] for parts in below if len(parts) > 1}
    files = [f"/{path.relative_to(REPO)}" for path in project_files()]
    missing = []
    for page in (path for path in project_files() if path.suffix == ".md"):
        code = " ".join(re.findall(r"```.*?```|`[^`]+`", page.read_text(), re.DOTALL))
        made = re.findall(r'^```\w+ title="([^"]+)"$', page.read_text(), re.MULTILINE)  # by whoever reads the page
        for name in re.findall(r"(?<![\w./-])(?:[\w.-]+/)*[\w.-]+", code):
            if name.endswith(".py"):
                exists = name in made or any(file.endswith(f"/{name}") for file in files)
            elif name.partition("/")[0] in folders and "/" in name:
                exists = any((root / name).exists() for root in (*roots, page.parent))
            else:
                continue
            missing += [] if exists else [f"{page.relative_to(REPO)}: {name}"]
    assert not missing


def test_every_decision_record_is_listed() -> None:
    pages = {path.name for path in (REPO / "docs/adr").glob("[0-9]*.md")}
    listed = set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (REPO / "docs/adr/README.md").read_text()))
    assert pages == listed
