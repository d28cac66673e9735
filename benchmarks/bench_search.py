"""Our nearest-neighbor search against scikit-learn and faiss, our coreset selection against a plain loop: `make bench`.

All are measured in turn in one run, on random patch vectors that form clusters as real ones do. Compare the ratios; the
milliseconds are valid only for this machine at this time. With one thread, processor time is measured, which other
programs disturb less. Writes out/bench/search.json.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.neighbors import NearestNeighbors
from timing import RESULTS, best_ms, write_results
from torch import Tensor

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from patchserve_server.engine.patchcore.coreset import select_coreset
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.engine.search.search_product import SearchProduct, can_multiply

DIM = 1536
LEAST_RECALL = 0.9999  # scikit-learn and we may order distances differently that are equal but for rounding
PRODUCTS = [product for product in SearchProduct if can_multiply(product, torch.device("cpu"))]
# queries, bank rows, features, neighbors, repeats; the fifth line has the shape of efficientnet_lite2
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
    """Random patch vectors (rows, dim) float32 around 200 cluster centers."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(200, dim, generator=generator)
    cluster = torch.randint(0, 200, (rows,), generator=generator)
    return centers[cluster] + 0.5 * torch.randn(rows, dim, generator=generator)


def clock() -> Callable[[], float]:
    """Processor time with one thread, else wall-clock time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def flat_index(bank: Tensor, k: int) -> Callable[[Tensor], Any]:
    """A search by faiss; it returns bank rows, nearest first."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    return lambda queries: index.search(queries.numpy(), k)[1]


def search_rows(count: int, rows: int, dim: int, k: int, repeats: int) -> list[dict[str, Any]]:
    queries, bank = clustered(count, 1, dim), clustered(rows, 2, dim)
    indexes = {one: BankIndex.build(bank, product=one) for one in PRODUCTS}
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.numpy())
    search_flat = flat_index(bank, k)
    expected, expected_rows = brute.kneighbors(queries.numpy())
    product = torch.empty(count, rows)
    functions: dict[str, Callable[[], object]] = {
        "float32 product alone": lambda: torch.mm(queries, bank.T, out=product),
        "scikit-learn brute": lambda: brute.kneighbors(queries.numpy()),
        "faiss IndexFlatL2": lambda: search_flat(queries),
    }
    search = ParallelSearch(torch.get_num_threads())
    for one, index in indexes.items():
        distances, found_rows = search.nearest(queries, index, k)
        np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-4)
        if recall(found_rows.numpy(), expected_rows) < LEAST_RECALL:
            raise RuntimeError(f"The search by {one} is not exact.")
        functions[one] = lambda index=index: search.nearest(queries, index, k)  # type: ignore[misc]
    times_ms = best_ms(repeats, functions, clock())
    search.close()
    what = f"{k} of {rows} rows for {count} x {dim}"
    peers = [peer for peer in functions if peer not in indexes]
    return [
        {"what": f"{what}, {one}", "peer": peer, "peer_ms": times_ms[peer], "ms": times_ms[one]}
        for one in indexes
        for peer in peers
    ]


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """The share of the expected rows that were found."""
    return float((found[:, :, None] == expected[:, None]).any(axis=1).mean())


def plain_greedy(features: Tensor, count: int) -> Tensor:
    """The usual form of the algorithm: after each choice, its distances to all points."""
    chosen = [0]
    distances = torch.linalg.vector_norm(features - features[0], dim=1)
    while len(chosen) < count:
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, torch.linalg.vector_norm(features - features[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def covering_radius(features: Tensor, rows: Tensor) -> float:
    """The largest distance of a feature vector to the nearest of the chosen rows."""
    return float(nearest(features, BankIndex.build(features[rows]), 1)[0].max())


def coreset_row() -> dict[str, Any]:
    features = clustered(CORESET_ROWS, 3)
    selections: dict[str, Callable[[Tensor, int], Tensor]] = {"peer": plain_greedy, "ours": select_coreset}
    chosen: dict[str, Tensor] = {}

    def run(name: str) -> Callable[[], None]:
        return lambda: chosen.update({name: selections[name](features, CORESET_COUNT)})

    times_ms = best_ms(1, {name: run(name) for name in selections}, clock())
    radius = covering_radius(features, chosen["ours"]) / covering_radius(features, chosen["peer"])
    what = f"coreset, {CORESET_ROWS} to {CORESET_COUNT} (radius x {radius:.3f})"
    return {
        "what": what,
        "peer": "plain greedy, no projection",
        "peer_ms": times_ms["peer"],
        "ms": times_ms["ours"],
        "radius": radius,
    }


def main() -> None:
    argparse.ArgumentParser(description="Measures our search and coreset selection against others.").parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = [*(row for case in SEARCHES for row in search_rows(*case)), coreset_row()]
    table = Table(
        "what",
        "peer",
        "peer ms",
        "ms",
        "ratio",
        title="exact search by each product, and coreset selection",
    )
    for row in rows:
        row["ratio"] = row["peer_ms"] / row["ms"]
        table.add_row(row["what"], row["peer"], *(f"{row[key]:.1f}" for key in ("peer_ms", "ms", "ratio")))
    Console().print(table)
    write_results(RESULTS / "search.json", rows)


if __name__ == "__main__":
    main()
