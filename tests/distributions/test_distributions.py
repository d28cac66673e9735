"""The wheel and the source distribution, as users get them: installed without the extras, and unpacked.

`make test-dist` builds both, installs the wheel into an empty environment and runs this.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from fakes.fake_server import serving
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
DIST = REPO / "dist"
CLIENT_VENV = os.environ.get("PATCHSERVE_CLIENT_VENV")
BIN = Path(CLIENT_VENV or ".").resolve() / "bin"
PACKAGES = (
    "client/patchserve_client",
    "client/patchserve_command",
    "protos/python/patchserve",
    "server/patchserve_server",
)

pytestmark = pytest.mark.skipif(not CLIENT_VENV, reason="make test-dist builds what this tests")


def run(program: str, *arguments: str, cwd: Path) -> str:
    """What a program of the client's environment prints; it sees nothing of this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [str(BIN / program), *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def the_only(pattern: str) -> Path:
    (path,) = DIST.glob(pattern)
    return path


def test_the_client_alone_is_installed(tmp_path: Path) -> None:
    listed = json.loads(run("python", "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    installed = {canonicalize_name(entry["name"]) for entry in listed}
    lock = (REPO / "requirements/client.txt").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([a-z0-9.-]+)==[^;]+?\\$", lock, re.MULTILINE)}
    assert installed - {"pip", "setuptools"} == locked | {"patchserve"}
    assert not {"torch", "openvino", "faiss-cpu", "safetensors"} & installed


def test_the_command_runs_without_the_server(tmp_path: Path) -> None:
    version = the_only("*.whl").name.split("-")[1]
    assert run("patchserve", "--version", cwd=tmp_path) == f"patchserve {version}\n"
    assert "Usage: patchserve" in run("patchserve", "--help", cwd=tmp_path)
    for command in ("infer", "stream", "evaluate", "reference", "info", "health"):
        assert f"Usage: patchserve {command}" in run("patchserve", command, "--help", cwd=tmp_path)


def test_the_server_says_how_to_install_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "patchserve-server", "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not done.stdout
    assert re.fullmatch(
        r"patchserve-server: only the client of patchserve is installed here \(\w+ is missing\)\. "
        r"Install the server with `pip install \"\.\[server\]\"` in a checkout of patchserve\.\n",
        done.stderr,
    )


def test_the_command_talks_to_a_server(tmp_path: Path) -> None:
    with serving() as fake:
        assert run("patchserve", "--server", fake.address, "health", cwd=tmp_path) == "alive: yes\nready: yes\n"


def test_the_library_imports_and_is_typed(tmp_path: Path) -> None:
    code = "import patchserve_client, patchserve.v1.service_pb2; print(patchserve_client.__file__)"
    package = Path(run("python", "-c", code, cwd=tmp_path).strip()).parent
    assert BIN.parent in package.parents
    assert (package / "py.typed").exists()


def test_the_wheel_holds_the_packages_and_nothing_else() -> None:
    with zipfile.ZipFile(the_only("*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=REPO, capture_output=True, text=True, check=True)
    assert names == {re.sub(r"^(client|protos/python|server)/", "", name) for name in tracked.stdout.split()}


def test_the_source_distribution_holds_every_file_of_the_repository() -> None:
    with tarfile.open(the_only("*.tar.gz")) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile() or member.issym()}
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True)
    assert names == {*tracked.stdout.splitlines(), "PKG-INFO"}
