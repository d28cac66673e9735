"""What the commands of `patchserve-server store` print."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from patchserve_server.domain.words import counted
from patchserve_server.store import CheckedGeneration, CheckedReference
from patchserve_server.store.damage import printable
from patchserve_server.store.leftovers import is_reference_id
from patchserve_server.store.shared.checking import CheckedIndex

SHORT: Final = 12  # characters of a revision in a text
_NAMED: Final = 5  # references that a line names


def report_lines(references: Sequence[CheckedReference], store: Path | str) -> Iterator[str]:
    """What was found, and what to do about it."""
    if not references:
        what = "folder" if isinstance(store, Path) else "URL"
        yield f"There are no references in {store}. Is it the {what} of `serve --store`?"
        return
    for reference in references:
        name = printable(reference.reference_id)  # of a folder, in which anything may be
        yield f"{name}: {f'damaged: {reference.problem}' if reference.problem else 'intact'}"
        for generation in reference.generations:
            yield f"  {_line(reference, generation)}"
        if reference.problem:
            yield f"  {_advice(reference, store)}"
    damaged = sum(bool(reference.problem) for reference in references)
    yield f"{counted(len(references), 'reference')}: {len(references) - damaged} intact, {damaged} damaged"


def index_lines(index: CheckedIndex | None) -> Iterator[str]:
    """What is wrong with the index of a bucket, and what to do about it."""
    if index is None:
        return
    if not index.is_readable:
        yield "The root of the index is missing or damaged."
    if index.differing:
        names = ", ".join(index.differing[:_NAMED]) + (", ..." if len(index.differing) > _NAMED else "")
        yield f"The index differs from {counted(len(index.differing), 'pointer')}: {names}"
    if not index.is_intact:
        yield "Servers correct the index within minutes; `patchserve-server store check --repair` does it now."
    for key in index.strangers:
        yield f"{printable(key)} is not understood, and is left alone; nothing is removed from the store meanwhile."


def _line(reference: CheckedReference, generation: CheckedGeneration) -> str:
    state = f"damaged: {generation.problem}"
    if not generation.problem:
        images, patches = generation.image_count, generation.patch_count
        state = (
            f"intact, {counted(images, 'image')}, {patches} patches, saved {generation.save_time:%Y-%m-%d %H:%M:%SZ}"
        )
    names = {reference.revision: " (current)", reference.previous_revision: " (previous)"}
    return f"{generation.revision[:SHORT]}{names.get(generation.revision, '')} {state}"


def _advice(reference: CheckedReference, store: Path | str) -> str:
    if not isinstance(store, Path):
        return _advice_for_bucket(reference, store)
    if not is_reference_id(reference.reference_id):
        return "Stop the server, then give the folder the id of the reference as its name again."
    if not reference.intact_generations and not reference.is_readable:
        return "It may be intact: make its files readable for this user, then check again."
    if not reference.intact_generations:
        return "No revision is intact: load the images again, or delete the reference."
    which = " --revision REVISION" if len(reference.intact_generations) > 1 else ""
    command = f"patchserve-server store restore --store {shlex.quote(str(store))} {reference.reference_id}{which}"
    return f"To use an intact revision, stop the server, then run: {command}"


def _advice_for_bucket(reference: CheckedReference, store: str) -> str:
    if not reference.intact_generations:
        return "No revision is intact: load the images again, or delete the reference."
    command = f"patchserve-server store restore --store {shlex.quote(store)} {reference.reference_id}"
    return f"To use the previous revision, run: {command}"


def print_line(text: str) -> None:
    print(text)  # noqa: T201 - the output of the command
