"""The commands `patchserve-server store check` and `patchserve-server store restore`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.store import CheckedGeneration, CheckedReference, check_store, restore

_SHORT = 12  # characters of a revision in a text


def add_store_commands(commands: Any) -> None:  # noqa: ANN401 - argparse hides its type
    """Add `store` to the commands of `patchserve-server`."""
    store = commands.add_parser("store", help="check a store folder, or restore a damaged reference in it")
    actions = store.add_subparsers(metavar="check|restore", required=True)
    check = actions.add_parser("check", help="say which references and revisions are intact")
    check.add_argument("--json", action="store_true", dest="as_json", help="print a JSON document")
    check.set_defaults(run=_check)
    restoring = actions.add_parser(
        "restore", help="make an intact revision current again; no server may use the folder"
    )
    restoring.add_argument("reference_id", metavar="ID", help="the reference")
    help_text = "the revision, or the beginning of it; needed only if several are intact"
    restoring.add_argument("--revision", default="", metavar="REVISION", help=help_text)
    restoring.set_defaults(run=_restore)
    for command in (check, restoring):
        default = os.environ.get("PATCHSERVE_STORE")
        command.add_argument(
            "--store", type=_folder, default=default, required=not default, metavar="DIR", help="the store's folder"
        )


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return folder


def _check(arguments: argparse.Namespace) -> int:
    """Print the state of every reference. Exit code 1 if one is damaged."""
    try:
        references = list(check_store(arguments.store))
    except OSError as error:
        sys.exit(f"{arguments.store}: {error.strerror}")
    if arguments.as_json:
        _print(
            json.dumps({"references": [_document(each) for each in references]}, indent=2, default=datetime.isoformat)
        )
    else:
        _print_report(references)
    return int(any(reference.problem for reference in references))


def _restore(arguments: argparse.Namespace) -> int:
    try:
        generation = restore(arguments.store, arguments.reference_id, arguments.revision)
    except PatchserveError as error:
        sys.exit(f"patchserve-server: {error.message}")
    revision, images = generation.revision[:_SHORT], _counted(generation.image_count, "image")
    _print(f"Reference {arguments.reference_id} is at revision {revision} with {images}.")
    return 0


def _document(reference: CheckedReference) -> dict[str, Any]:
    return {"is_intact": not reference.problem, **dataclasses.asdict(reference)}


def _print_report(references: list[CheckedReference]) -> None:
    for reference in references:
        _print(f"{reference.reference_id}: {f'damaged: {reference.problem}' if reference.problem else 'intact'}")
        for generation in reference.generations:
            _print(f"  {_line(reference, generation)}")
        if reference.problem:
            _print(f"  {_advice(reference)}")
    damaged = sum(bool(reference.problem) for reference in references)
    _print(f"{_counted(len(references), 'reference')}: {len(references) - damaged} intact, {damaged} damaged")


def _line(reference: CheckedReference, generation: CheckedGeneration) -> str:
    state = f"damaged: {generation.problem}"
    if not generation.problem:
        images, patches = generation.image_count, generation.patch_count
        state = (
            f"intact, {_counted(images, 'image')}, {patches} patches, saved {generation.save_time:%Y-%m-%d %H:%M:%SZ}"
        )
    current = " (current)" if generation.revision == reference.revision else ""
    return f"{generation.revision[:_SHORT]}{current} {state}"


def _advice(reference: CheckedReference) -> str:
    if not reference.intact_generations:
        return "No revision is intact: load the images again, or delete the reference."
    which = " --revision REVISION" if len(reference.intact_generations) > 1 else ""
    return (
        f"To use an intact revision, stop the server: patchserve-server store restore {reference.reference_id}{which}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the output of the command
