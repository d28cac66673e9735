"""Nearest neighbors against scikit-learn, coreset selection against the plain greedy loop: `make bench`.

faiss's flat index is a peer too. All are measured in turns in one run, on made-up patches that lie in clusters as real
ones do. The ratios are the result; the milliseconds are this machine's of this minute. On one core the processor's time
is taken, which others at work disturb less. Writes out/bench/search.json.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from patchserve_server.engine.patchcore.coreset import select_coreset
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.bfloat16_bounds import multiplies_bfloat16
from patchserve_server.engine.search.nearest import nearest

RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench" / "search.json"
DIM = 1536
# queries, rows, channels, neighbors, and how often each is measured; the fifth is the embedded backbone's
SEARCHES = (
    (784, 784, DIM, 9, 15),
    (784, 784, DIM, 1, 15),
    (784, 7_840, DIM, 9, 9),
    (784, 7_840, DIM, 1, 9),
    (196, 23_520, 328, 9, 9),
    (784, 78_400, DIM, 9, 3),
)
CORESET_ROWS = 15_680
CORESET_COUNT = 1_568


def clustered(rows: int, seed: int, dim: int = DIM) -> Tensor:
    """Patches (rows, dim) float32 around 200 centers."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(200, dim, generator=generator)
    which = torch.randint(0, 200, (rows,), generator=generator)
    return centers[which] + 0.5 * torch.randn(rows, dim, generator=generator)


def best_ms(repeats: int, *measured: Callable[[], object]) -> list[float]:
    """The shortest of each, taken in turns."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in measured]
    for _ in range(repeats):
        for taken, run in zip(times, measured, strict=True):
            begun = clock()
            run()
            taken.append(1000 * (clock() - begun))
    return [min(taken) for taken in times]


def flat_index(bank: Tensor, k: int) -> Callable[[Tensor], Any]:
    """The rows that faiss finds, nearest first."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    return lambda queries: index.search(queries.numpy(), k)[1]


def search_rows(count: int, rows: int, dim: int, k: int, repeats: int) -> list[dict[str, Any]]:
    queries, bank = clustered(count, 1, dim), clustered(rows, 2, dim)
    index = BankIndex.build(bank)
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.numpy())
    flat = flat_index(bank, k)
    expected, expected_rows = brute.kneighbors(queries.numpy())
    found, found_rows = nearest(queries, index, k)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    peers = {
        "scikit-learn brute": lambda: brute.kneighbors(queries.numpy()),
        "faiss IndexFlatL2": lambda: flat(queries),
    }
    ours_ms, *theirs_ms = best_ms(repeats, lambda: nearest(queries, index, k), *peers.values())
    what = f"{k} of {rows} rows for {count} x {dim} (recall {recall(found_rows.numpy(), expected_rows):.4f})"
    return [
        {"what": what, "peer": peer, "peer_ms": peer_ms, "ms": ours_ms}
        for peer, peer_ms in zip(peers, theirs_ms, strict=True)
    ]


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """The share of the expected rows that were found."""
    return float((found[:, :, None] == expected[:, None]).any(axis=1).mean())


def plain_greedy(features: Tensor, count: int) -> Tensor:
    """One distance to every point for every choice, as the algorithm is usually written."""
    chosen = [0]
    distances = torch.linalg.vector_norm(features - features[0], dim=1)
    while len(chosen) < count:
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, torch.linalg.vector_norm(features - features[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def covering_radius(features: Tensor, rows: Tensor) -> float:
    return float(nearest(features, BankIndex.build(features[rows]), 1)[0].max())


def coreset_row() -> dict[str, Any]:
    features = clustered(CORESET_ROWS, 3)
    found: dict[str, Tensor] = {}

    def run(name: str, select: Callable[[Tensor, int], Tensor]) -> Callable[[], None]:
        return lambda: found.update({name: select(features, CORESET_COUNT)})

    theirs_ms, ours_ms = best_ms(1, run("plain", plain_greedy), run("ours", select_coreset))
    radius = covering_radius(features, found["ours"]) / covering_radius(features, found["plain"])
    what = f"coreset, {CORESET_ROWS} to {CORESET_COUNT} (radius x {radius:.3f})"
    return {"what": what, "peer": "plain greedy, no projection", "peer_ms": theirs_ms, "ms": ours_ms, "radius": radius}


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = [*(row for case in SEARCHES for row in search_rows(*case)), coreset_row()]
    product = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    table = Table("what", "peer", "peer ms", "ms", "ratio", title=f"search (by products in {product}) and selection")
    for row in rows:
        row["ratio"] = row["peer_ms"] / row["ms"]
        table.add_row(row["what"], row["peer"], *(f"{row[key]:.1f}" for key in ("peer_ms", "ms", "ratio")))
    Console().print(table)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
