"""`patchserve-server store restore`: makes an intact revision the current one."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchserve_server.cli.parser import Commands
from patchserve_server.cli.store.report import SHORT, print_line
from patchserve_server.cli.store.where import add_store_flags, bucket, errors, opened, store_of
from patchserve_server.domain.errors import PreconditionError, ReferenceDamagedError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.words import counted
from patchserve_server.store import restore
from patchserve_server.store.shared import SharedReferenceStore


def add_to(commands: Commands) -> None:
    description = (
        "Make an intact revision of a reference current again: any generation of a folder, which no server may use; of "
        "a bucket, the previous revision. Removes nothing."
    )
    parser = commands.add_parser("restore", help="make an intact revision current", description=description)
    add_store_flags(parser)
    parser.add_argument("reference_id", metavar="ID", help="the reference")
    help_text = "the revision, or its beginning; needed only if several are intact"
    parser.add_argument("--revision", default="", metavar="REVISION", help=help_text)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    store = store_of(arguments, "restore")
    with errors("restore"):
        if isinstance(store, Path):
            generation = restore(store, arguments.reference_id, arguments.revision)
            revision, image_count = generation.revision, generation.image_count
        else:
            with bucket(store, "restore"), opened(store) as references:
                assert isinstance(references, SharedReferenceStore)  # noqa: S101 - that is what a URL opens
                revision, image_count = _restore(references, ReferenceId(arguments.reference_id), arguments.revision)
    images = counted(image_count, "image")
    print_line(f"Reference {arguments.reference_id} is at revision {revision[:SHORT]} with {images}.")


def _restore(store: SharedReferenceStore, reference_id: ReferenceId, revision: str) -> tuple[str, int]:
    """Makes the previous revision current, unless the current one is intact and is the one that is wanted."""
    problem = ""
    try:
        current = store.load(reference_id)
        if current.revision.startswith(revision):
            return current.revision, len(current.model.bank.inputs)
    except ReferenceDamagedError as error:
        problem = f" {error.message}"
    previous = store.load_previous(reference_id)
    if not previous.revision.startswith(revision):
        message = f'Reference "{reference_id}" has no intact revision {revision}.{problem}'
        raise PreconditionError(reference_id, message)
    store.restore(reference_id, previous.revision)
    return previous.revision, len(previous.model.bank.inputs)
