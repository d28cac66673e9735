"""`make accuracy`: measures the named tables, prints them and writes out/accuracy/NAME.md and .json."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from accuracy import boards, cost, drawn, few_references, parcel_pair, sets

TABLES: dict[str, Callable[[Path], None]] = {
    "sets": sets.measure,
    "references": few_references.measure,
    "boards": boards.measure,
    "parcels": parcel_pair.measure,
    "drawn": drawn.measure,
    "cost": cost.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make accuracy", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with the labeled sets")
    names = ", ".join(TABLES)
    parser.add_argument("names", nargs="*", choices=[[], *TABLES], metavar="NAME", help=f"{names} (default: all)")
    arguments = parser.parse_args()
    for name in arguments.names or TABLES:
        started_s = time.perf_counter()
        TABLES[name](arguments.data)
        Console().print(f"{name}: {time.perf_counter() - started_s:.0f} s")


if __name__ == "__main__":
    main()
