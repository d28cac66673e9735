"""Says what is intact in a store folder, without changing or locking it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import is_plain_folder
from patchserve_server.store.generation import OpenGeneration, is_generation
from patchserve_server.store.leftovers import is_reference_id
from patchserve_server.store.os_errors import reason_of
from patchserve_server.store.pointer import read_pointer
from patchserve_server.store.publishing import generations_in, has_reference

_TRIES = 5  # a server may change a reference while it is checked


@dataclass(frozen=True, slots=True)
class CheckedGeneration:
    """One generation of a reference. `problem` is empty if it is intact."""

    revision: str
    problem: str
    image_count: int  # 0 if it is damaged
    patch_count: int
    save_time: datetime  # UTC
    is_readable: bool = True  # False: the operating system refused it, so it may be intact


@dataclass(frozen=True, slots=True)
class CheckedReference:
    """One reference of a store. `problem` is empty if it can be served."""

    reference_id: str
    revision: str  # that the pointer names; empty if the pointer is damaged
    problem: str
    generations: tuple[CheckedGeneration, ...]
    previous_revision: str = ""  # that the pointer names besides; empty: none
    is_readable: bool = True  # whether its folder, pointer and generations are

    @property
    def intact_generations(self) -> tuple[CheckedGeneration, ...]:
        return tuple(generation for generation in self.generations if not generation.problem)


def check_store(root: Path) -> Iterator[CheckedReference]:
    """Read every generation of every reference, and verify its digest.

    Raises:
        OSError: the folder cannot be read.
    """
    for folder in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
        if (checked := check_reference(folder)) is not None:
            yield checked


def look_at_store(root: Path) -> dict[str, str]:
    """What looks wrong with each reference; empty: nothing. Pointers and headers are read, arrays are not.

    Raises:
        OSError: the folder cannot be read.
    """
    folders = sorted(path for path in root.iterdir() if not path.name.startswith(".") and has_reference(path))
    return {folder.name: _look_at(folder) for folder in folders}


def _look_at(folder: Path) -> str:
    try:
        revision = read_pointer(folder).revision
        if not is_generation(folder / revision):
            return "its current revision is missing"
        OpenGeneration(folder / revision)
    except DamageError as error:
        return str(error)
    except OSError as error:
        return _unreadable(error)
    return "" if is_reference_id(folder.name) else "its folder's name is not the id of a reference"


def check_reference(folder: Path) -> CheckedReference | None:
    """The state of the reference in this folder; None if there is none. A reference that changes is checked again."""
    for _ in range(_TRIES):
        try:
            if not has_reference(folder):
                return None
            before, checked = _state(folder), _checked(folder)
            if _state(folder) == before:
                return checked
        except OSError as error:
            checked = CheckedReference(folder.name, "", _unreadable(error), (), is_readable=False)
    return checked


def _state(folder: Path) -> tuple[str, list[str]]:
    """What changes with every save and deletion: the pointer and the names of the generations."""
    try:
        pointer = read_pointer(folder).model_dump_json()
    except DamageError as error:
        pointer = str(error)
    return pointer, _generation_names(folder)


def _generation_names(folder: Path) -> list[str]:
    return [path.name for path in generations_in(folder)] if is_plain_folder(folder) else []


def _checked(folder: Path) -> CheckedReference:
    generations = tuple(_checked_generation(folder / name) for name in _generation_names(folder))
    revision, previous_revision, problem = "", "", ""
    try:
        pointer = read_pointer(folder)
        revision, previous_revision = pointer.revision, pointer.previous.revision if pointer.previous else ""
        problem = next(
            (each.problem for each in generations if each.revision == revision), "its current revision is missing"
        )
    except DamageError as error:
        problem = str(error)
    if not is_reference_id(folder.name):
        problem = "its folder's name is not the id of a reference"
    is_readable = all(each.is_readable for each in generations)
    return CheckedReference(folder.name, revision, problem, generations, previous_revision, is_readable)


def _checked_generation(folder: Path) -> CheckedGeneration:
    image_count = patch_count = 0
    problem, is_readable = "", True
    save_time = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    try:
        bank = OpenGeneration(folder).read().model.bank
        image_count, patch_count = len(bank.inputs), bank.vector_count
    except DamageError as error:
        problem = str(error)
    except OSError as error:
        problem, is_readable = _unreadable(error), False
    return CheckedGeneration(folder.name, problem, image_count, patch_count, save_time, is_readable)


def _unreadable(error: OSError) -> str:
    return f"it cannot be read ({reason_of(error)})"
