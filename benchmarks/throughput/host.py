"""The machine and the package versions that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

_CPU_FEATURES = {
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


def describe_host(server: Path) -> dict[str, Any]:
    """Processor, memory, versions, and the load average of the last five minutes: about 0 on a quiet machine."""
    capabilities = torch.cpu.get_capabilities()
    server_version = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": os.cpu_count(),
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "cpu_features": {
            feature: any(capabilities.get(name, False) for name in names) for feature, names in _CPU_FEATURES.items()
        },
        "load_average": round(psutil.getloadavg()[1], 2),
        "versions": {"python": platform.python_version(), "patchserve": server_version.split()[-1]}
        | {name: version(name) for name in _DISTRIBUTIONS},
    }


def host_sentence(host: dict[str, Any]) -> str:
    """One line about the host, for the report."""
    features = ", ".join(f"{'' if present else 'no '}{name}" for name, present in host["cpu_features"].items())
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
    return (
        f"{host['cores']} cores ({host['processor']}: {features}), {host['memory_gib']} GiB, "
        f"load average {host['load_average']} before the run. {versions}."
    )
