"""`make bench`: writes out/bench/results.json, systems.png and scaling.png, and prints the tables."""

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

from throughput.comparison import SYSTEMS, Plan, compare_systems
from throughput.host import describe_host
from throughput.inputs import EMBEDDED, WIDE_RESNET, prepare_inputs
from throughput.mixed import measure_mixed
from throughput.processes import start_worker
from throughput.ratios import compute_ratios
from throughput.report import draw_charts, markdown
from throughput.scaling import measure_scaling
from throughput.systems import Setup

_REPO = Path(__file__).resolve().parents[2]
_FOLDER = _REPO / "out" / "bench"
_RESULTS = _FOLDER / "results.json"
_QUIET_LOAD_AVERAGE = 0.5
_MIXED, _SCALING = "mixed", "scaling"
_PARTS = (*SYSTEMS, _MIXED, _SCALING)
_FULL, _QUICK = (3, 3.0), (1, 1.0)  # rounds, seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round with fewer loads, to see that it runs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_PARTS,
        default=_PARTS,
        metavar="PART",
        help=f"parts to measure: {', '.join(_PARTS)} (default: all)",
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        choices=[WIDE_RESNET, EMBEDDED],
        default=[WIDE_RESNET, EMBEDDED],
        help="backbones to measure (default: both)",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["fp32", "bf16", "int8"],
        help="precisions to measure; unsupported ones are skipped (default: fp32 bf16 int8)",
    )
    parser.add_argument("--rounds", type=int, help=f"rounds over all cases (default: {_FULL[0]})")
    parser.add_argument(
        "--seconds", type=float, help=f"seconds for each case and round, after its warm-up (default: {_FULL[1]:g})"
    )
    parser.add_argument(
        "--server",
        type=Path,
        default=_REPO / ".venv" / "bin" / "patchserve-server",
        help="the server program (default: .venv/bin/patchserve-server)",
    )
    parser.add_argument("--markdown", action="store_true", help="only print the tables of the last results")
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.markdown:
        print(markdown(json.loads(_RESULTS.read_text())), end="")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    started_s = time.monotonic()
    results: dict[str, Any] = {
        "host": describe_host(options.server),
        "rows": [],
        "mixed": [],
        "scaling": [],
        "ratios": {},
        "stages": [],
    }
    if results["host"]["load_average"] > _QUIET_LOAD_AVERAGE:
        console.print("Other programs are running on this machine; they distort every number.", style="red")
    for part, rows in _measure(options, console):
        results[part] += rows
        results["ratios"] = compute_ratios(results["rows"], results["mixed"])
        _write(results)
    draw_charts(results, _FOLDER)
    console.print(markdown(results))
    console.print(f"Done in {(time.monotonic() - started_s) / 60:.1f} minutes; results: {_RESULTS.relative_to(_REPO)}")


def _measure(options: argparse.Namespace, console: Console) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """New rows for a part of the results, as soon as they are measured."""
    rounds, seconds = _QUICK if options.quick else _FULL
    with ExitStack() as running:
        folder = Path(running.enter_context(TemporaryDirectory(prefix="patchserve-bench-")))
        setup = Setup(
            server=options.server,
            inputs=prepare_inputs(folder),
            load_generator=running.enter_context(
                start_worker("throughput.load_generator", log=folder / "load_generator.log")
            ),
            folder=folder,
        )
        plan = Plan(
            setup=setup,
            precisions=tuple(options.precisions),
            systems=options.only,
            rounds=options.rounds or rounds,
            seconds=options.seconds or seconds,
            quick=options.quick,
            console=console,
        )
        for backbone in options.backbones:
            rows, stages = compare_systems(plan, backbone)
            yield "rows", rows
            yield "stages", stages
            if _MIXED in options.only:
                yield "mixed", measure_mixed(plan, backbone)
        if _SCALING in options.only:
            yield "scaling", measure_scaling(plan)


def _write(results: dict[str, Any]) -> None:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
