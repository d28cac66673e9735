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

from patchserve_server.engine.backbone.network import Network, open_network
from patchserve_server.engine.backbone.openvino_runtime import has_bf16
from patchserve_server.engine.backbone.precision import with_precision

RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench" / "backbone.json"
ROUNDS = {"wide_resnet50_2": 10, "efficientnet_lite2": 40}
BATCHES = (1, 8)


def opened(backbone: str) -> Network:
    if backbone != "wide_resnet50_2":
        return open_network(backbone, None, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.pth"
        torch.save(wide_resnet50_2().state_dict(), file)
        return open_network(backbone, file, torch.device("cpu"))


def best_ms(repeats: int, measured: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, run in measured.items():
            begun = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - begun))
    return {name: min(taken) for name, taken in times.items()}


def rows(backbone: str, repeats: int) -> list[dict[str, Any]]:
    in_torch = opened(backbone)
    begun = time.perf_counter()
    runtimes = {"torch fp32": in_torch, "OpenVINO fp32": with_precision(in_torch, "fp32")}
    converted_s = time.perf_counter() - begun
    if has_bf16():
        runtimes["OpenVINO bf16"] = with_precision(in_torch, "bf16")
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 224, 224, 3), dtype=np.uint8)
    runtimes["OpenVINO int8"] = with_precision(in_torch, "int8").for_reference(
        images, lambda _stage, _done, _total: None
    )

    def run(network: Network, batch: int) -> Callable[[], object]:
        return torch.inference_mode()(lambda: network.layers(images[:batch]))

    found = {
        batch: best_ms(repeats, {name: run(network, batch) for name, network in runtimes.items()}) for batch in BATCHES
    }
    return [
        {
            "backbone": backbone,
            "runtime": name,
            "ms": {batch: found[batch][name] / batch for batch in BATCHES},
            "ratio": {batch: found[batch]["torch fp32"] / found[batch][name] for batch in BATCHES},
            "conversion_s": None if network is in_torch else converted_s,
        }
        for name, network in runtimes.items()
    ]


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    results = [row for backbone, repeats in ROUNDS.items() for row in rows(backbone, repeats)]
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
