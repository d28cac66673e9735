"""Prints the tables of docs/scale.md: python -m scale, in a quarter of an hour on one core."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from scale.fleet import Figures, Simulation
from scale.simulated_storage import Service

HOURS_PER_MONTH = 730
CHANGES_PER_S = (0.1, 1, 2, 5, 10)
SERVERS = (1, 10, 100, 1000)
REFERENCES = (1_000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scale", description=__doc__)
    parser.add_argument("--servers", type=int, default=1000, help="of the fleet [default: 1000]")
    parser.add_argument("--references", type=int, default=10_000, help="in the store [default: 10000]")
    parser.add_argument("--seconds", type=float, default=60, help="simulated, of each row [default: 60]")
    parser.add_argument("--only", choices=TABLES, nargs="+", default=list(TABLES), help="tables")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another fleet [default: 1]")
    arguments = parser.parse_args()
    for name in arguments.only:
        started_s = time.perf_counter()
        print(f"\n### {name.capitalize()}\n")
        for number, line in enumerate(TABLES[name](arguments)):
            print("| " + " | ".join(line) + " |", flush=True)
            if not number:
                print("| " + " | ".join("---" for _ in line) + " |")
        print(f"\n({time.perf_counter() - started_s:.0f} s)")


def _figures(
    arguments: argparse.Namespace,
    *,
    changes_per_s: float,
    servers: int | None = None,
    references: int | None = None,
    service: Service | None = None,
) -> tuple[Figures, Simulation]:
    simulation = Simulation(
        servers=servers or arguments.servers,
        reference_count=references or arguments.references,
        service=service,
        seed=arguments.seed,
    )
    try:
        return simulation.run(changes_per_s=changes_per_s, seconds=arguments.seconds), simulation
    finally:
        simulation.close()


def starts(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield (
        "servers that start",
        "within s",
        "references",
        "ready after p50 s",
        "the slowest s",
        "reads of each",
        "throttled",
    )
    cases = [(1, 0, references) for references in REFERENCES]
    cases += [(arguments.servers, 60, arguments.references), (arguments.servers // 5, 0, arguments.references)]
    for count, within_s, references in cases:
        simulation = Simulation(servers=count, reference_count=references, seed=arguments.seed)
        try:
            ready = simulation.start_all(within_s)
        finally:
            simulation.close()
        bill = simulation.bucket.bill
        median_s = Figures.percentile(ready, 50)
        reads = (bill.reads - bill.throttled) / count
        yield (
            *(f"{count:,}", str(within_s), f"{references:,}", f"{median_s:.1f}", f"{max(ready):.1f}"),
            *(f"{reads:.0f}", f"{bill.throttled:,}"),
        )


def idle(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield "references", "requests per server and second", "of them unchanged", "USD per server and month"
    for references in REFERENCES:
        found, _ = _figures(arguments, changes_per_s=0, references=references)
        per_s = found.bill.reads / found.servers / found.seconds
        usd = found.bill.usd / found.seconds * 3600 * HOURS_PER_MONTH / found.servers
        share = found.bill.unchanged / max(1, found.bill.reads)
        yield f"{references:,}", f"{per_s:.3f}", f"{share:.0%}", f"{usd:.2f}"


_CHANGE_COLUMNS = (
    *("answer p50 s", "p99 s", "known to all p50 s", "p99 s", "longest s"),
    *("reads", "writes", "KiB read", "USD for 1,000", "failed", "throttled", "never known"),
)


def _change_row(found: Figures, simulation: Simulation) -> Sequence[str]:
    count = max(1, len(found.answered))
    bill, percentile = found.bill, found.percentile
    idle_reads = found.servers * found.seconds / 2.15
    return (
        f"{percentile(found.answered, 50):.2f}",
        f"{percentile(found.answered, 99):.2f}",
        f"{percentile(found.known, 50):.2f}",
        f"{percentile(found.known, 99):.2f}",
        f"{max(found.known, default=float('nan')):.2f}",
        f"{max(0.0, bill.reads - bill.unchanged) / count:.0f}",
        f"{bill.writes / count:.1f}",
        f"{bill.bytes_read / count / 1024:,.0f}",
        f"{1000 * max(0.0, bill.usd - idle_reads * 0.4e-6) / count:.2f}",
        str(found.failed),
        str(bill.throttled),
        str(simulation.unknown_somewhere),
    )


def changes(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield "changes per second", *_CHANGE_COLUMNS
    for changes_per_s in CHANGES_PER_S:
        yield f"{changes_per_s:g}", *_change_row(*_figures(arguments, changes_per_s=changes_per_s))


def servers(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield "servers", *_CHANGE_COLUMNS
    for count in SERVERS:
        yield f"{count:,}", *_change_row(*_figures(arguments, changes_per_s=1, servers=count))


def references(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield "references", *_CHANGE_COLUMNS
    for count in REFERENCES:
        yield f"{count:,}", *_change_row(*_figures(arguments, changes_per_s=1, references=count))


def faults(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield "service", *_CHANGE_COLUMNS
    services = {
        "as usual": Service(),
        "1 % of requests fail": Service(faults=0.01),
        "10 % of requests fail": Service(faults=0.1),
        "ten times as slow": Service(read_s=0.15, write_s=0.3),
        "500 reads, 50 writes per second": Service(reads_per_s=500, writes_per_s=50),
    }
    for name, service in services.items():
        yield name, *_change_row(*_figures(arguments, changes_per_s=1, service=service))


TABLES = {
    "starts": starts,
    "idle": idle,
    "changes": changes,
    "servers": servers,
    "references": references,
    "faults": faults,
}

if __name__ == "__main__":
    main()
