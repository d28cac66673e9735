"""tools/install_lock.py: a lock with torch from another index, in a folder of small wheels."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[3]
SCRIPT = REPO / "tools" / "install_lock.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_lock", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "from_torch"),
    [
        ("dev.txt", ["torch", "torchcodec", "torchvision"]),
        ("server.txt", ["torch", "torchcodec"]),
        ("peers.txt", ["torch", "torchvision"]),
    ],
)
def test_a_lock_is_split_into_torch_and_the_rest_without_cuda(
    name: str, from_torch: list[str], script: ModuleType
) -> None:
    lock = (REPO / "requirements" / name).read_text()
    rest, torch = script.split_lock(lock)
    assert [requirement.partition("==")[0] for requirement in torch] == from_torch
    names = [line.partition("==")[0] for line in rest.splitlines() if "==" in line.partition(" ")[0]]
    all_names = [line.partition("==")[0] for line in lock.splitlines() if "==" in line.partition(" ")[0]]
    removed = [each for each in all_names if each not in names]
    assert {*from_torch, "triton", "cuda-toolkit", "nvidia-cublas"} <= set(removed)
    assert all(each.startswith(("torch", "triton", "cuda-", "nvidia-")) for each in removed)
    assert "torchmetrics" not in removed
    assert rest.count("--hash=sha256:") > 100
    assert set(rest.splitlines()) <= set(lock.splitlines())


def test_what_would_be_installed_from_another_index_is_shown() -> None:
    lock = REPO / "requirements" / "server.txt"
    command = [sys.executable, str(SCRIPT), str(lock), "--show"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^([a-z0-9._-]+)==", shown, re.MULTILINE)
    assert "torch" in names
    assert "numpy" in names
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with one empty module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {
        path: base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        for path, content in files.items()
    }
    record = "".join(f"{path},sha256={hashes[path]},{len(content)}\n" for path, content in files.items())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, content)
    return file


def index(folder: Path, *wheels: Path) -> str:
    """A simple index of these wheels."""
    for file in wheels:
        page = folder / file.name.partition("-")[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f'<a href="{file.as_uri()}">{file.name}</a>')
    return folder.as_uri()


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Setup:
    """An empty environment, a lock whose torch has CUDA, and an index of wheels for CPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        locked = [
            wheel(folder / "locked", name, "1.0") for name in ("small", "torch", "torchcodec", "torchvision", "triton")
        ]
        locked.append(wheel(folder / "locked", "nvidia_cublas", "1.0"))
        self.lock = folder / "lock.txt"
        self.lock.write_text(
            "".join(
                f"{file.name.split('-')[0].replace('_', '-')}==1.0 ; sys_platform == 'linux' \\\n"
                f"    --hash=sha256:{hash_of(file)}\n    # via something\n"
                for file in locked
            )
        )
        self.cpu = [wheel(folder / "cpu", name, "1.0+cpu") for name in ("torch", "torchcodec", "torchvision")]
        self.index = index(folder / "index", *self.cpu)
        venv.create(folder / "venv", with_pip=True)

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        pip = ["--find-links", str(self.folder / "locked"), "--no-cache-dir", "--disable-pip-version-check"]
        if not options:
            pip.append("--no-index")
        command = [str(self.folder / "venv/bin/python"), str(SCRIPT), str(self.lock), *options, *pip]
        # No index but those named here: an address that nobody answers.
        environment = {
            "PATH": "/usr/bin:/bin",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
        }
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    def installed(self) -> dict[str, str]:
        pip = [str(self.folder / "venv/bin/python"), "-m", "pip", "list", "--format", "json"]
        listed = json.loads(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
        versions = {entry["name"].replace("_", "-"): entry["version"] for entry in listed}
        return {name: version for name, version in versions.items() if name not in ("pip", "setuptools")}


@pytest.mark.skipif(sys.platform != "linux", reason="the lock of this test is for Linux")
def test_torch_comes_from_the_index_and_nothing_of_cuda_is_installed(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    done = setup.install("--torch-index", setup.index)
    assert done.returncode == 0, done.stderr
    assert setup.installed() == {"small": "1.0", "torch": "1.0+cpu", "torchcodec": "1.0+cpu", "torchvision": "1.0+cpu"}
    assert "without a check of their hashes" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the lock of this test is for Linux")
def test_hashes_of_torch_are_checked_if_they_are_given(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    hashes = tmp_path / "hashes.txt"
    lines = [f"{file.name.split('-')[0]}==1.0+cpu --hash=sha256:{hash_of(file)}" for file in setup.cpu]
    hashes.write_text("\n".join([*lines[:-1], lines[-1][:-4] + "0000"]))
    failed = setup.install("--torch-index", setup.index, "--torch-hashes", str(hashes))
    assert failed.returncode != 0
    assert "DO NOT MATCH THE HASHES" in failed.stderr
    hashes.write_text("\n".join(lines))
    done = setup.install("--torch-index", setup.index, "--torch-hashes", str(hashes))
    assert done.returncode == 0, done.stderr
    assert setup.installed()["torch"] == "1.0+cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="the lock of this test is for Linux")
def test_without_another_index_the_whole_lock_is_installed_and_checked(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    done = setup.install()
    assert done.returncode == 0, done.stderr
    assert set(setup.installed()) == {"small", "torch", "torchcodec", "torchvision", "triton", "nvidia-cublas"}
    wheel(tmp_path / "locked", "small", "1.0").write_bytes((tmp_path / "cpu" / setup.cpu[0].name).read_bytes())
    venv.create(tmp_path / "venv", with_pip=True, clear=True)
    assert setup.install().returncode != 0
