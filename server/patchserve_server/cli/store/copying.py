"""`patchserve-server store copy`: copies references between stores of any kinds."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands, path_argument
from patchserve_server.cli.store.report import print_line
from patchserve_server.cli.store.where import Store, bucket, errors, existing_folder, opened
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.store_address import is_url
from patchserve_server.store.copying import CopiedReference, Outcome, copy_references
from patchserve_server.store.shared.index_writer import listed_pointers

_MIB: Final = 2**20


def add_to(commands: Commands) -> None:
    description = (
        "Copy references, each with its previous revision, and read what was written. What the target has already is "
        "not copied again, so that a copy that was interrupted goes on. Servers may use buckets meanwhile, but not "
        "folders. Exit code 1 if one could not be copied."
    )
    parser = commands.add_parser("copy", help="copy references into another store", description=description)
    parser.add_argument("source", metavar="FROM", help="the folder or the URL that has them")
    parser.add_argument("target", metavar="TO", help="the folder or the URL that gets them")
    parser.add_argument(
        "--reference", action="append", type=_reference_id, default=[], metavar="ID", help="only this one; repeatable"
    )
    parser.set_defaults(run=_run)


def _reference_id(text: str) -> ReferenceId:
    try:
        return ReferenceId(text)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _run(arguments: argparse.Namespace) -> None:
    source = arguments.source if is_url(arguments.source) else existing_folder(arguments.source, "copy")
    target = arguments.target if is_url(arguments.target) else path_argument(arguments.target)
    if str(source) == str(target):
        sys.exit(f"{PROGRAM} store copy: FROM and TO are the same store.")
    with errors("copy"), ExitStack() as stack:
        ids = arguments.reference or _ids_in(source)
        from_store = stack.enter_context(opened(source))
        to_store = stack.enter_context(opened(target, is_target=True))
        outcomes = _copy(from_store, to_store, ids or from_store.list_ids(), are_named=bool(arguments.reference))
    copied, there, missing, failed = (
        outcomes[each] for each in (Outcome.COPIED, Outcome.SAME, Outcome.MISSING, Outcome.FAILED)
    )
    words = [f"{copied} copied", f"{there} there already"]
    words += [f"{missing} not in the source"] if missing else []
    words += [f"{failed} failed"] if failed else []
    print_line(", ".join(words))
    sys.exit(int(failed > 0 or (missing > 0 and bool(arguments.reference))))


def _ids_in(source: Path | str) -> Sequence[ReferenceId]:
    """The ids of all references of a bucket by their pointers; of a folder, the store says them."""
    if isinstance(source, Path):
        return ()
    with bucket(source, "copy") as (storage, _):
        return sorted(listed_pointers(storage))


def _copy(source: Store, target: Store, ids: Sequence[ReferenceId], *, are_named: bool) -> Counter[Outcome]:
    outcomes: Counter[Outcome] = Counter()
    for number, copied in enumerate(copy_references(source, target, ids), 1):
        outcomes[copied.outcome] += 1
        if are_named or copied.outcome is not Outcome.MISSING:  # of all: it was deleted meanwhile, or long ago
            print(f"{number} of {len(ids)}: {_line(copied)}", file=sys.stderr, flush=True)  # noqa: T201
    return outcomes


def _line(copied: CopiedReference) -> str:
    size = f" ({copied.bank_bytes / _MIB:.1f} MiB)" if copied.outcome is Outcome.COPIED else ""
    problem = f": {copied.problem}" if copied.problem else ""
    return f"{copied.reference_id} {copied.outcome.value}{size}{problem}"
