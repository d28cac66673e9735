"""`patchserve-server store check|restore`: what is intact in a store folder, and how to use it again."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands, Parser, path_argument
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.words import counted
from patchserve_server.store import CheckedGeneration, CheckedReference, check_store, restore
from patchserve_server.store.damage import printable
from patchserve_server.store.leftovers import is_reference_id

_SHORT = 12  # characters of a revision in a text


def add_to(commands: Commands) -> None:
    title = "check a store folder, or restore a damaged reference in it"
    subcommands = commands.add_parser("store", help=title, description=title).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    description = (
        "Say which references and revisions are intact. Changes nothing; a server may use the folder. Exit code 1 if a "
        "reference is damaged."
    )
    check = subcommands.add_parser("check", help="say what is intact", description=description)
    check.add_argument(
        "--output", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json [default: text]"
    )
    check.set_defaults(run=_check)
    description = "Make an intact revision of a reference current again. Removes nothing; no server may use the folder."
    restoring = subcommands.add_parser("restore", help="make an intact revision current", description=description)
    restoring.add_argument("reference_id", metavar="ID", help="the reference")
    help_text = "the revision, or its beginning; needed only if several are intact"
    restoring.add_argument("--revision", default="", metavar="REVISION", help=help_text)
    restoring.set_defaults(run=_restore)
    for parser in (check, restoring):
        _add_store_flag(parser)


def _add_store_flag(parser: Parser) -> None:
    """The setting of `serve`, which is also the variable PATCHSERVE_STORE."""
    default = os.environ.get("PATCHSERVE_STORE") or None
    parser.add_argument(
        "--store", type=_folder, default=default, required=default is None, metavar="FOLDER", help="the store's folder"
    )


def _folder(text: str) -> Path:
    folder = path_argument(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return folder


def _check(arguments: argparse.Namespace) -> None:
    try:
        references = list(check_store(arguments.store))
    except OSError as error:
        sys.exit(f"{PROGRAM} store check: {arguments.store}: {error.strerror}")
    if arguments.output == "json":
        document = {"references": [_document(reference) for reference in references]}
        _print(json.dumps(document, indent=2, default=datetime.isoformat))
    else:
        _print_report(references, arguments.store)
    sys.exit(int(any(reference.problem for reference in references)))


def _restore(arguments: argparse.Namespace) -> None:
    try:
        generation = restore(arguments.store, arguments.reference_id, arguments.revision)
    except PatchserveError as error:
        sys.exit(f"{PROGRAM} store restore: {error.message}")
    revision, images = generation.revision[:_SHORT], counted(generation.image_count, "image")
    _print(f"Reference {arguments.reference_id} is at revision {revision} with {images}.")


def _document(reference: CheckedReference) -> dict[str, Any]:
    return {"is_intact": not reference.problem, **dataclasses.asdict(reference)}


def _print_report(references: list[CheckedReference], store: Path) -> None:
    if not references:
        _print(f"There are no references in {store}. Is it the folder of `serve --store`?")
        return
    for reference in references:
        name = printable(reference.reference_id)  # of a folder, in which anything may be
        _print(f"{name}: {f'damaged: {reference.problem}' if reference.problem else 'intact'}")
        for generation in reference.generations:
            _print(f"  {_line(reference, generation)}")
        if reference.problem:
            _print(f"  {_advice(reference, store)}")
    damaged = sum(bool(reference.problem) for reference in references)
    _print(f"{counted(len(references), 'reference')}: {len(references) - damaged} intact, {damaged} damaged")


def _line(reference: CheckedReference, generation: CheckedGeneration) -> str:
    state = f"damaged: {generation.problem}"
    if not generation.problem:
        images, patches = generation.image_count, generation.patch_count
        state = (
            f"intact, {counted(images, 'image')}, {patches} patches, saved {generation.save_time:%Y-%m-%d %H:%M:%SZ}"
        )
    names = {reference.revision: " (current)", reference.previous_revision: " (previous)"}
    return f"{generation.revision[:_SHORT]}{names.get(generation.revision, '')} {state}"


def _advice(reference: CheckedReference, store: Path) -> str:
    if not is_reference_id(reference.reference_id):
        return "Stop the server, then give the folder the id of the reference as its name again."
    if not reference.intact_generations and not reference.is_readable:
        return "It may be intact: make its files readable for this user, then check again."
    if not reference.intact_generations:
        return "No revision is intact: load the images again, or delete the reference."
    which = " --revision REVISION" if len(reference.intact_generations) > 1 else ""
    command = f"patchserve-server store restore --store {shlex.quote(str(store))} {reference.reference_id}{which}"
    return f"To use an intact revision, stop the server, then run: {command}"


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the output of the command
