"""A machine where nothing is wrong: each test makes one fault."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from patchserve_server.bootstrap.doctor import credentials, limits, packages

GIB = 2**30


@pytest.fixture(autouse=True)
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says, independent of the machine that runs the tests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "open_files_limit", lambda: 65536)
    monkeypatch.setattr(limits, "machine_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(limits, "cgroup_bytes", lambda: None)
    monkeypatch.setattr(limits, "cgroup_cores", lambda: None)
    monkeypatch.setattr(limits, "available_cores", lambda: 4)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5 * GIB))
    monkeypatch.setattr(credentials, "is_synchronized", lambda: True)
    monkeypatch.setattr(packages, "_problems", lambda _: [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("patchserve_server.engine.backbone.openvino_runtime.supports_bf16", lambda: True)
