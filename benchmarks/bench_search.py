"""Nearest neighbours against scikit-learn, coreset selection against the plain greedy loop: `make bench`.

Each pair is measured in turns in one run, on made-up patches that lie in clusters as real ones do. The ratios are the
result; the milliseconds are this machine's of this minute. Writes out/bench/search.json.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from patchserve_server.engine.coreset import select_coreset
from patchserve_server.engine.neighbours import BankIndex, nearest

RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench" / "search.json"
DIM = 1536
QUERIES = 784
NEIGHBOURS = 9
BANK_ROWS = {784: 9, 7_840: 5, 78_400: 2}  # and how often each is measured
CORESET_ROWS = 15_680
CORESET_COUNT = 1_568


def clustered(rows: int, seed: int) -> Tensor:
    """Patches (rows, DIM) float32 around 200 centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(200, DIM, generator=generator)
    which = torch.randint(0, 200, (rows,), generator=generator)
    return centres[which] + 0.5 * torch.randn(rows, DIM, generator=generator)


def best_ms(repeats: int, *measured: Callable[[], object]) -> list[float]:
    """The shortest of each, taken in turns."""
    times: list[list[float]] = [[] for _ in measured]
    for _ in range(repeats):
        for taken, run in zip(times, measured, strict=True):
            begun = time.perf_counter()
            run()
            taken.append(1000 * (time.perf_counter() - begun))
    return [min(taken) for taken in times]


def search_row(rows: int, repeats: int) -> dict[str, Any]:
    queries, bank = clustered(QUERIES, 1), clustered(rows, 2)
    index = BankIndex(bank)
    peer = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(bank.numpy())
    theirs_ms, ours_ms = best_ms(
        repeats, lambda: peer.kneighbors(queries.numpy()), lambda: nearest(queries, index, NEIGHBOURS)
    )
    expected, found = peer.kneighbors(queries.numpy())[0], nearest(queries, index, NEIGHBOURS)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    return {"what": f"k-NN, {rows} rows", "peer": "scikit-learn brute", "peer_ms": theirs_ms, "ms": ours_ms}


def plain_greedy(features: Tensor, count: int) -> Tensor:
    """One distance to every point for every choice, as the algorithm is usually written."""
    chosen = [0]
    distances = torch.linalg.vector_norm(features - features[0], dim=1)
    while len(chosen) < count:
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, torch.linalg.vector_norm(features - features[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def covering_radius(features: Tensor, rows: Tensor) -> float:
    return float(nearest(features, BankIndex(features[rows]), 1)[0].max())


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
    torch.set_num_threads(os.cpu_count() or 1)
    rows = [*(search_row(*case) for case in BANK_ROWS.items()), coreset_row()]
    table = Table("what", "peer", "peer ms", "ms", "ratio", title="search and selection")
    for row in rows:
        row["ratio"] = row["peer_ms"] / row["ms"]
        table.add_row(row["what"], row["peer"], *(f"{row[key]:.1f}" for key in ("peer_ms", "ms", "ratio")))
    Console().print(table)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
