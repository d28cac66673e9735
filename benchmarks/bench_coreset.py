"""Our coreset selection against anomalib's, at the size of a real bank: `make bench-peers`.

One set of made-up patches that lie in clusters, thinned out to a tenth by anomalib's own KCenterGreedy and by ours, one
after the other and each in a process of its own, so that the peak of memory is its own as well. The ratios are the
result; the seconds are this machine's of this minute, and where others work on it the ratio of the processor's time is
the one to trust. Writes out/bench/coreset.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy
from bench_search import clustered, covering_radius
from rich.console import Console
from rich.table import Table
from torch import Tensor

from patchserve_server.engine.patchcore.coreset import select_coreset

RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench" / "coreset.json"
ROWS = 78_400
RATIO = 0.1


def by_anomalib(features: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it draws its projection from the global state
    with torch.inference_mode():
        return torch.tensor(KCenterGreedy(features, RATIO).select_coreset_idxs())


def by_patchserve(features: Tensor, seed: int) -> Tensor:
    return select_coreset(features, int(RATIO * len(features)), seed=seed)


SYSTEMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    f"anomalib {version('anomalib')}": by_anomalib,
    "patchserve": by_patchserve,
}


@dataclass(frozen=True)
class Selection:
    chosen: list[int]
    seconds: float
    cpu_seconds: float  # of all threads
    peak_mib: float  # of the process while it selects, beyond what it held before, the features included


@dataclass(frozen=True)
class Row:
    system: str
    features: int
    chosen: int
    seconds: float
    cpu_seconds: float
    covering_radius: float  # over all dimensions: the largest distance of a patch to the nearest chosen one
    peak_mib: float


def selection(system: str, features_path: Path, seed: int) -> Selection:
    """Runs in a process of its own."""
    torch.set_num_threads(os.cpu_count() or 1)
    features = torch.from_numpy(np.load(features_path))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before_mib = memory_mib("VmRSS")
    began, cpu_began = time.perf_counter(), time.process_time()
    chosen = SYSTEMS[system](features, seed)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Selection(chosen.tolist(), seconds, cpu_seconds, memory_mib("VmHWM") - before_mib)


def memory_mib(field: str) -> float:
    """What Linux says of this process: VmRSS is what it holds in main memory, VmHWM the most that it ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measured(features: Tensor, seed: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, features.numpy())
        for system in SYSTEMS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found = process.submit(selection, system, path, seed).result()
            rows.append(
                Row(
                    system=system,
                    features=len(features),
                    chosen=len(set(found.chosen)),
                    seconds=found.seconds,
                    cpu_seconds=found.cpu_seconds,
                    covering_radius=covering_radius(features, torch.tensor(found.chosen)),
                    peak_mib=found.peak_mib,
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures our coreset selection against anomalib's.")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many patches there are to choose from")
    parser.add_argument("--seed", type=int, default=0, help="of both selections")
    arguments = parser.parse_args()
    # Each large array is mapped by itself: that glibc's heap may grow, here by 2 GB, because freed places do not fit
    # the next array is an accident, and no doing of either.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    theirs, ours = measured(clustered(arguments.rows, 4), arguments.seed)
    ratios = {
        "times_faster": theirs.seconds / ours.seconds,
        "times_less_cpu": theirs.cpu_seconds / ours.cpu_seconds,
        "covering_radius_ratio": ours.covering_radius / theirs.covering_radius,
        "peak_memory_ratio": ours.peak_mib / theirs.peak_mib,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"rows": [asdict(theirs), asdict(ours)], **ratios}, indent=2) + "\n")
    table = Table(
        "system", "chosen", "seconds", "CPU s", "covering radius", "peak MiB", title=f"{theirs.features} patches"
    )
    for row in (theirs, ours):
        numbers = (row.seconds, row.cpu_seconds, row.covering_radius, row.peak_mib)
        table.add_row(row.system, str(row.chosen), *(f"{number:.2f}" for number in numbers))
    Console().print(table)
    print(", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
