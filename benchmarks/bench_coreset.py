"""Our coreset selection against anomalib's, at the size of a real bank: `make bench-peers`.

anomalib's KCenterGreedy and our selection choose a tenth of the same clustered random patch vectors. They run one after
the other, each in its own process, so that each has its own memory peak. Compare the ratios; the seconds are valid only
for this machine at this time. If other programs are running, trust the ratio of processor time. Writes
out/bench/coreset.json.
"""

from __future__ import annotations

import argparse
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
from timing import RESULTS, write_results
from torch import Tensor

from patchserve_server.engine.patchcore.coreset import select_coreset

ROWS = 78_400
RATIO = 0.1


def select_with_anomalib(features: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - anomalib draws its projection from the global state
    with torch.inference_mode():
        return torch.tensor(KCenterGreedy(features, RATIO).select_coreset_idxs())


def select_with_patchserve(features: Tensor, seed: int) -> Tensor:
    return select_coreset(features, int(RATIO * len(features)), seed=seed)


SYSTEMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    f"anomalib {version('anomalib')}": select_with_anomalib,
    "patchserve": select_with_patchserve,
}


@dataclass(frozen=True)
class Selection:
    chosen: list[int]
    seconds: float
    cpu_seconds: float  # of all threads
    peak_mib: float  # of the process during the selection, beyond its memory before, which includes the features


@dataclass(frozen=True)
class Row:
    system: str
    features: int
    chosen: int
    seconds: float
    cpu_seconds: float
    covering_radius: float  # the largest distance of a patch to the nearest chosen one, without a projection
    peak_mib: float


def select_and_measure(system: str, features_path: Path, seed: int) -> Selection:
    """Runs in its own process."""
    torch.set_num_threads(os.cpu_count() or 1)
    features = torch.from_numpy(np.load(features_path))
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before_mib = memory_mib("VmRSS")
    started_s, cpu_started_s = time.perf_counter(), time.process_time()
    chosen = SYSTEMS[system](features, seed)
    seconds, cpu_seconds = time.perf_counter() - started_s, time.process_time() - cpu_started_s
    return Selection(chosen.tolist(), seconds, cpu_seconds, memory_mib("VmHWM") - before_mib)


def memory_mib(field: str) -> float:
    """Memory of this process, from Linux: VmRSS is the resident memory now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(features: Tensor, seed: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, features.numpy())
        for system in SYSTEMS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                result = process.submit(select_and_measure, system, path, seed).result()
            rows.append(
                Row(
                    system=system,
                    features=len(features),
                    chosen=len(set(result.chosen)),
                    seconds=result.seconds,
                    cpu_seconds=result.cpu_seconds,
                    covering_radius=covering_radius(features, torch.tensor(result.chosen)),
                    peak_mib=result.peak_mib,
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures our coreset selection against anomalib's.")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"number of patch vectors (default: {ROWS})")
    parser.add_argument("--seed", type=int, default=0, help="seed of both selections (default: 0)")
    arguments = parser.parse_args()
    # Make glibc map each large array separately. Otherwise its heap may fragment and grow, here by 2 GB, which is an
    # accident and not a property of either selection.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    theirs, ours = measure(clustered(arguments.rows, 4), arguments.seed)
    ratios = {
        "times_faster": theirs.seconds / ours.seconds,
        "times_less_cpu": theirs.cpu_seconds / ours.cpu_seconds,
        "covering_radius_ratio": ours.covering_radius / theirs.covering_radius,
        "peak_memory_ratio": ours.peak_mib / theirs.peak_mib,
    }
    write_results(RESULTS / "coreset.json", {"rows": [asdict(theirs), asdict(ours)], **ratios})
    table = Table(
        "system", "chosen", "seconds", "CPU s", "covering radius", "peak MiB", title=f"{theirs.features} patches"
    )
    for row in (theirs, ours):
        numbers = (row.seconds, row.cpu_seconds, row.covering_radius, row.peak_mib)
        table.add_row(row.system, str(row.chosen), *(f"{number:.2f}" for number in numbers))
    Console().print(table)
    print(", ".join(f"{name.replace('_', ' ')}: {ratio:.3f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
