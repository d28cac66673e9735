"""The backbones in torch and in OpenVINO, with one image and with eight: `make bench`.

All are measured in turn in one run. Weights that do not come with the package are random: speed does not depend on
them. Compare the ratios; the milliseconds are valid only for this machine at this time. Writes out/bench/backbone.json.
"""

from __future__ import annotations

import argparse
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
from timing import RESULTS, best_ms, write_results
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

REPEATS = {"wide_resnet50_2": 10, "efficientnet_lite2": 40}
BATCHES = (1, 8)


def torch_backbone(name: str) -> SharedBackbone[TorchRuntime]:
    if name != "wide_resnet50_2":
        return load_backbone(name, None, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.pth"
        torch.save(wide_resnet50_2().state_dict(), file)
        return load_backbone(name, file, torch.device("cpu"))


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    backbone = torch_backbone(name)
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 224, 224, 3), dtype=np.uint8)

    def convert(precision: str) -> Runtime:
        return with_precision(backbone, precision, map_difference=map_difference).runtime_for(images, lambda *_: None)

    started_s = time.perf_counter()
    runtimes = {"torch fp32": backbone.runtime, "OpenVINO fp32": convert("fp32")}
    conversion_s = time.perf_counter() - started_s
    if supports_bf16():
        runtimes["OpenVINO bf16"] = convert("bf16")
    runtimes["OpenVINO int8"] = convert("int8")

    def run(runtime: Runtime, batch: int) -> Callable[[], object]:
        return torch.inference_mode()(lambda: runtime.layers(images[:batch]))

    times_ms = {
        batch: best_ms(repeats, {label: run(runtime, batch) for label, runtime in runtimes.items()})
        for batch in BATCHES
    }
    return [
        {
            "backbone": name,
            "runtime": label,
            "ms": {batch: times_ms[batch][label] / batch for batch in BATCHES},
            "ratio": {batch: times_ms[batch]["torch fp32"] / times_ms[batch][label] for batch in BATCHES},
            "conversion_s": None if runtime is backbone.runtime else conversion_s,
        }
        for label, runtime in runtimes.items()
    ]


def main() -> None:
    argparse.ArgumentParser(description="Measures the backbones in torch and in OpenVINO.").parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    results = [row for name, repeats in REPEATS.items() for row in measure(name, repeats)]
    columns = [f"{what}, batch of {batch}" for batch in BATCHES for what in ("ms per image", "speed over torch")]
    table = Table("backbone", "runtime", *columns, title="backbones on the CPU")
    for row in results:
        cells = [f"{row[what][batch]:.2f}" for batch in BATCHES for what in ("ms", "ratio")]
        table.add_row(row["backbone"], row["runtime"], *cells)
    Console().print(table)
    write_results(RESULTS / "backbone.json", results)


if __name__ == "__main__":
    main()
