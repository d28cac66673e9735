"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512_f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "amx": ("amx_tile",),
}
_DISTRIBUTIONS = (
    "torch", "torchvision", "openvino", "nncf", "grpcio", "numpy", "pillow", "opencv-python-headless", "scikit-learn",
    "anomalib", "flask", "gunicorn",
)  # fmt: skip


def machine(server: Path) -> dict[str, Any]:
    """The load average is that of the five minutes before: on a quiet machine it is about 0."""
    capabilities = torch.cpu.get_capabilities()
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": os.cpu_count(),
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "flags": {name: any(capabilities.get(one, False) for one in names) for name, names in _FLAGS.items()},
        "load_average": round(psutil.getloadavg()[1], 2),
        "versions": {"python": platform.python_version(), "patchserve": said.split()[-1]}
        | {name: version(name) for name in _DISTRIBUTIONS},
    }


def sentence(found: dict[str, Any]) -> str:
    had = ", ".join(f"{'' if had else 'no '}{name}" for name, had in found["flags"].items())
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['cores']} cores ({found['processor']}: {had}), {found['memory_gib']} GiB, "
        f"load average {found['load_average']} before the run. {versions}."
    )
