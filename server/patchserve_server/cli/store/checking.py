"""`patchserve-server store check`: what is intact in a store."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands
from patchserve_server.cli.store.report import index_lines, print_line, report_lines
from patchserve_server.cli.store.where import add_store_flags, bucket, errors, store_of
from patchserve_server.domain.words import counted
from patchserve_server.store import CheckedReference, check_store
from patchserve_server.store.shared.checking import CheckedIndex, check_bucket, check_index, repair_bucket


def add_to(commands: Commands) -> None:
    description = (
        "Say which references and revisions are intact. Servers may use the store meanwhile. Changes nothing without "
        "--repair. Exit code 1 if a reference is damaged, or the index of a bucket is wrong."
    )
    parser = commands.add_parser("check", help="say what is intact", description=description)
    add_store_flags(parser)
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json [default: text]"
    )
    help_text = "of a bucket: look for the objects and their sizes, and do not read them"
    parser.add_argument("--quick", action="store_true", help=help_text)
    help_text = "of a bucket: first correct the index, and put back from the trash what is used"
    parser.add_argument("--repair", action="store_true", help=help_text)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    store, index = store_of(arguments, "check"), None
    with errors("check"):
        if isinstance(store, Path):
            references = _check_folder(store, arguments)
        else:
            references, index = _check_bucket(store, arguments)
    _report(references, index, store, arguments)


def _check_folder(store: Path, arguments: argparse.Namespace) -> list[CheckedReference]:
    if arguments.quick or arguments.repair:
        sys.exit(f"{PROGRAM} store check: --quick and --repair are for buckets; `store restore` mends a folder.")
    return list(check_store(store))


def _check_bucket(url: str, arguments: argparse.Namespace) -> tuple[list[CheckedReference], CheckedIndex]:
    with bucket(url, "check") as (storage, surroundings):
        if arguments.repair:
            repaired = repair_bucket(storage, surroundings)
            names, objects = counted(len(repaired.entries), "reference"), counted(len(repaired.returned), "object")
            print(f"Corrected the index for {names}, put back {objects}.", file=sys.stderr)  # noqa: T201
        references = list(check_bucket(storage, surroundings, is_quick=arguments.quick))
        return references, check_index(storage, surroundings)


def _report(
    references: list[CheckedReference], index: CheckedIndex | None, store: Path | str, arguments: argparse.Namespace
) -> None:
    if arguments.output == "json":
        document: dict[str, Any] = {"references": [_document(reference) for reference in references]}
        if index is not None:
            document["index"] = {"is_intact": index.is_intact, **dataclasses.asdict(index)}
        print_line(json.dumps(document, indent=2, default=datetime.isoformat))
    else:
        for line in [*report_lines(references, store), *index_lines(index)]:
            print_line(line)
    sys.exit(int(any(reference.problem for reference in references) or not (index is None or index.is_intact)))


def _document(reference: CheckedReference) -> dict[str, Any]:
    return {"is_intact": not reference.problem, **dataclasses.asdict(reference)}
