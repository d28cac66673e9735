"""`make reliability`: does the named runs, prints their results and writes out/reliability/NAME.json."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from reliability import (
    absent_callers,
    attacks_messages,
    drain,
    fuzz,
    greedy,
    kill,
    no_token,
    overload,
    slow_connections,
    soak,
)
from reliability.harness import Result

OUT = Path(__file__).resolve().parents[2] / "out" / "reliability"
# The function of each run and its default amount: seconds, MiB of a message, or a number of kills, stops or inputs.
RUNS: dict[str, tuple[Callable[[int], Coroutine[Any, Any, Result]], int]] = {
    "overload": (overload.run, 120),
    "greedy": (greedy.run, 60),
    "no-token": (no_token.run, 60),
    "absent": (absent_callers.run, 8000),
    "drain": (drain.run, 50),
    "slow-connections": (slow_connections.run, 60),
    "messages": (attacks_messages.run, 60),
    "kill": (kill.run, 200),
    "fuzz": (fuzz.run, 100_000),
    "soak": (soak.run, 1200),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make reliability", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *RUNS], metavar="NAME", help=f"{', '.join(RUNS)} (default: all)"
    )
    parser.add_argument(
        "--amount",
        type=int,
        help="seconds for overload, slow-connections, soak; MiB for messages; else a number of kills, stops or inputs",
    )
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or RUNS:
        run, amount = RUNS[name]
        result = asyncio.run(run(arguments.amount or amount))
        (OUT / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        Console().print(f"[bold]{name}[/bold]")
        Console().print_json(data=result)


if __name__ == "__main__":
    main()
