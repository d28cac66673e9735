"""The backbones in torch and in OpenVINO, one image at a time and eight: `make bench`.

Measured in turns in one run, weights random where they do not come with the package: speed does not depend on them. The
ratios are the result; the milliseconds are this machine's of this minute. Writes out/bench/backbone.json.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision.models import wide_resnet50_2

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.openvino_runtime import supports_bf16
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.map_difference import map_difference

RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench" / "backbone.json"
ROUNDS = {"wide_resnet50_2": 10, "efficientnet_lite2": 40}
BATCHES = (1, 8)


def in_torch(name: str) -> SharedBackbone[TorchRuntime]:
    if name != "wide_resnet50_2":
        return load_backbone(name, None, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.pth"
        torch.save(wide_resnet50_2().state_dict(), file)
        return load_backbone(name, file, torch.device("cpu"))


def best_ms(repeats: int, measured: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, run in measured.items():
            begun = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - begun))
    return {name: min(taken) for name, taken in times.items()}


def rows(name: str, repeats: int) -> list[dict[str, Any]]:
    backbone = in_torch(name)
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 224, 224, 3), dtype=np.uint8)

    def runtime(precision: str) -> Runtime:
        return with_precision(backbone, precision, map_difference=map_difference).runtime_for(images, lambda *_: None)

    begun = time.perf_counter()
    runtimes = {"torch fp32": backbone.runtime, "OpenVINO fp32": runtime("fp32")}
    converted_s = time.perf_counter() - begun
    if supports_bf16():
        runtimes["OpenVINO bf16"] = runtime("bf16")
    runtimes["OpenVINO int8"] = runtime("int8")

    def run(one: Runtime, batch: int) -> Callable[[], object]:
        return torch.inference_mode()(lambda: one.layers(images[:batch]))

    found = {batch: best_ms(repeats, {label: run(one, batch) for label, one in runtimes.items()}) for batch in BATCHES}
    return [
        {
            "backbone": name,
            "runtime": label,
            "ms": {batch: found[batch][label] / batch for batch in BATCHES},
            "ratio": {batch: found[batch]["torch fp32"] / found[batch][label] for batch in BATCHES},
            "conversion_s": None if one is backbone.runtime else converted_s,
        }
        for label, one in runtimes.items()
    ]


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    results = [row for name, repeats in ROUNDS.items() for row in rows(name, repeats)]
    columns = [f"{what}, {batch} at once" for batch in BATCHES for what in ("ms an image", "times torch's speed")]
    table = Table("backbone", "runtime", *columns, title="backbones on the CPU")
    for row in results:
        cells = [f"{row[what][batch]:.2f}" for batch in BATCHES for what in ("ms", "ratio")]
        table.add_row(row["backbone"], row["runtime"], *cells)
    Console().print(table)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
