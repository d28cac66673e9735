"""`patchserve-server doctor`: whether a server with these settings can start here, and what to do where not."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

from patchserve_server.bootstrap.doctor.finding import Finding, Status, fault, ok
from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import add_flags, read
from patchserve_server.cli.parser import Commands
from patchserve_server.config import ConfigurationError
from patchserve_server.domain.words import counted

_STYLES: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAULT: "bold red"}
_STATUS_WIDTH, _SUBJECT_WIDTH = 9, 14
_LINE_WIDTH: Final = 10_000  # in a pipe: a line for a finding


def add_to(commands: Commands) -> None:
    description = (
        "Look at what a server with these settings needs: packages, weights, device, store, ports, certificates, clock "
        "and limits. Each line is ok, or says what to do. Changes nothing, and may run beside the server. Exit code 1 "
        "if there is a fault: a server would not start, or not work."
    )
    usage = f"{PROGRAM} doctor [--output text|json] [FLAGS of serve]"
    title = "say what keeps a server from running here"
    parser = commands.add_parser("doctor", help=title, description=description, usage=usage)
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json [default: text]"
    )
    add_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.output == "json":
        findings = list(_findings(arguments))
        counts = Counter(finding.status for finding in findings)
        document = {"faults": counts[Status.FAULT], "warnings": counts[Status.WARNING]}
        lines = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({**document, "findings": lines}, indent=2))  # noqa: T201 - the output of the command
    else:
        counts = _print_findings(_findings(arguments))
    sys.exit(int(counts[Status.FAULT] > 0))


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    from patchserve_server.bootstrap.doctor.examination import examine  # noqa: PLC0415 - imports gRPC

    try:
        configuration = read(arguments)
    except ConfigurationError as error:
        for problem in error.problems:
            yield fault("settings", str(problem), f"See `{PROGRAM} config show --help` and docs/configuration.md.")
        return
    counts = Counter(origin.kind for origin in configuration.origins.values() if origin.kind != "default")
    file = "" if configuration.file is None else f" of {configuration.file}"
    where = ", ".join(f"{count} by {kind}{file if kind == 'file' else ''}" for kind, count in sorted(counts.items()))
    yield ok("settings", where or "all have their defaults")
    yield from examine(configuration.settings)


def _print_findings(findings: Iterator[Finding]) -> Counter[Status]:
    from rich.console import Console  # noqa: PLC0415 - other commands print no table
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _LINE_WIDTH

    def print_line(status: Text, subject: str, text: Text) -> None:
        line = Table.grid()
        for width in (_STATUS_WIDTH, _SUBJECT_WIDTH):
            line.add_column(width=width)
        line.add_column(overflow="fold")
        line.add_row(status, subject, text)
        console.print(line)

    counts: Counter[Status] = Counter()
    for finding in findings:  # one after the other: some take a second
        counts[finding.status] += 1
        print_line(Text(finding.status, _STYLES[finding.status]), finding.subject, Text(finding.message))
        if finding.advice:
            print_line(Text(), "", Text(f"-> {finding.advice}", "bold"))
    console.print(f"{counted(counts[Status.FAULT], 'fault')}, {counted(counts[Status.WARNING], 'warning')}")
    return counts
