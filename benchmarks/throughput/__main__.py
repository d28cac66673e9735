"""`make bench`: writes out/bench/results.json, systems.png and growth.png, and prints the tables."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from throughput.comparison import SYSTEMS, Plan, compared
from throughput.growth import growth
from throughput.machine import machine
from throughput.material import EMBEDDED, WIDE_RESNET, prepare
from throughput.processes import worker
from throughput.ratios import ratios
from throughput.report import draw, markdown
from throughput.systems import Bench

_REPO = Path(__file__).resolve().parents[2]
_FOLDER = _REPO / "out" / "bench"
_RESULTS = _FOLDER / "results.json"
_QUIET = 0.5  # load average
_GROWTH = "growth"
_FULL, _QUICK = (3, 3.0), (1, 1.0)  # rounds and seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round and fewer loads: does it run at all")
    parser.add_argument("--only", nargs="+", choices=[*SYSTEMS, _GROWTH], default=[*SYSTEMS, _GROWTH], metavar="PART")
    parser.add_argument("--backbones", nargs="+", choices=[WIDE_RESNET, EMBEDDED], default=[WIDE_RESNET, EMBEDDED])
    parser.add_argument(
        "--precisions", nargs="+", default=["fp32", "bf16", "int8"], help="those it refuses are skipped"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each case in each round, after its warm-up")
    parser.add_argument("--server", type=Path, default=_REPO / ".venv" / "bin" / "patchserve-server")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the tables of the last results")
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.markdown:
        print(markdown(json.loads(_RESULTS.read_text())), end="")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    began = time.monotonic()
    results: dict[str, Any] = {"machine": machine(options.server), "rows": [], "growth": [], "ratios": {}, "stages": []}
    if results["machine"]["load_average"] > _QUIET:
        console.print("Something else runs on this machine: its share of every figure is not known.", style="red")
    for part, rows in _measured(options, console):
        results[part] += rows
        results["ratios"] = ratios(results["rows"])
        _write(results)
    draw(results, _FOLDER)
    console.print(markdown(results))
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes; written to {_RESULTS.relative_to(_REPO)}")


def _measured(options: argparse.Namespace, console: Console) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What is to be added to each part of the results, as soon as it is known."""
    rounds, seconds = _QUICK if options.quick else _FULL
    with ExitStack() as up:
        folder = Path(up.enter_context(TemporaryDirectory(prefix="patchserve-bench-")))
        bench = Bench(
            server=options.server,
            material=prepare(folder),
            callers=up.enter_context(worker("throughput.load", log=folder / "load.log")),
            folder=folder,
        )
        plan = Plan(
            bench=bench,
            precisions=tuple(options.precisions),
            systems=options.only,
            rounds=options.rounds or rounds,
            seconds=options.seconds or seconds,
            quick=options.quick,
            console=console,
        )
        for backbone in options.backbones:
            rows, stages = compared(plan, backbone)
            yield "rows", rows
            yield "stages", stages
        if _GROWTH in options.only:
            yield "growth", growth(plan)


def _write(results: dict[str, Any]) -> None:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
