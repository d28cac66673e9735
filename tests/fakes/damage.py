"""Ways to damage a stored reference."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.references import make_reference

VICTIM, OTHER = make_reference("victim", 1), make_reference("other", 2)
TEBIBYTE = 1 << 40

Harm = Callable[[Path], object]
"""Damages the reference "victim" of the store in this folder."""

Place = Callable[[Path], Path]
"""The path of a file or folder of the reference "victim", from the folder of the store."""


def folder(root: Path) -> Path:
    return root / "victim"


def generation(root: Path) -> Path:
    return folder(root) / VICTIM.revision


def bank(root: Path) -> Path:
    return generation(root) / "bank.safetensors"


def manifest(root: Path) -> Path:
    return generation(root) / "manifest.json"


def pointer(root: Path) -> Path:
    return folder(root) / "current.json"


FILES: dict[str, Place] = {"bank": bank, "manifest": manifest, "pointer": pointer}


def write(file: Place, data: bytes) -> Harm:
    return lambda root: file(root).write_bytes(data)


def pad(file: Place, count: int) -> Harm:
    """Spaces before the content, which is still the same JSON."""
    return lambda root: file(root).write_bytes(b" " * count + file(root).read_bytes())


def cut(file: Place, size: int) -> Harm:
    def harm(root: Path) -> None:
        assert file(root).stat().st_size > size
        os.truncate(file(root), size)

    return harm


def sparse(file: Place, start: bytes, size: int = TEBIBYTE) -> Harm:
    """A file with a huge size that takes no space on the disk."""

    def harm(root: Path) -> None:
        file(root).write_bytes(start)
        os.truncate(file(root), size)

    return harm


def swap(file: Place, old: bytes, new: bytes) -> Harm:
    """Replace text that must be in the file."""

    def harm(root: Path) -> None:
        data = file(root).read_bytes()
        assert old in data
        file(root).write_bytes(data.replace(old, new))

    return harm


def edit(file: Place, path: str, value: Any) -> Harm:
    """Another value in a JSON file; `path` such as `spec.backbone`."""
    return _change(file, path, lambda part, key: part.__setitem__(key, value))


def drop(file: Place, path: str) -> Harm:
    """A JSON file without a field."""
    return _change(file, path, lambda part, key: part.pop(key))


def _change(file: Place, path: str, change: Callable[[dict[str, Any], str], object]) -> Harm:
    def harm(root: Path) -> None:
        record = part = json.loads(file(root).read_bytes())
        *parents, key = path.split(".")
        for parent in parents:
            part = part[parent]
        change(part, key)
        file(root).write_text(json.dumps(record))

    return harm


def remove(place: Place) -> Harm:
    def harm(root: Path) -> None:
        if place(root).is_dir():
            shutil.rmtree(place(root))
        else:
            place(root).unlink()

    return harm


def replace_by(place: Place, make: Callable[[Path], object]) -> Harm:
    """Replace a file or folder by something else of the same name."""

    def harm(root: Path) -> None:
        remove(place)(root)
        make(place(root))

    return harm


def copy(place: Place, source: str) -> Harm:
    """Replace a file or folder by another one of the store."""

    def harm(root: Path) -> None:
        remove(place)(root)
        if (root / source).is_dir():
            shutil.copytree(root / source, place(root))
        else:
            shutil.copy(root / source, place(root))

    return harm


def link(place: Place) -> Harm:
    """Move a file or folder out of the store and link to it."""

    def harm(root: Path) -> None:
        outside = root.parent / f"outside-{place(root).name}"
        shutil.move(place(root), outside)
        place(root).symlink_to(outside)

    return harm


def _folder_with_content(path: Path) -> None:
    (path / "below").mkdir(parents=True)


# name -> a part of the message, how to damage the reference
NOT_A_FILE: dict[str, tuple[str, Harm]] = {
    f"{name} {what}": (words, harm)
    for name, file in FILES.items()
    for what, words, harm in (
        ("a link", "is not a plain file", link(file)),
        ("a link to a device", "is not a plain file", replace_by(file, lambda path: path.symlink_to("/dev/zero"))),
        ("a broken link", "is not a plain file", replace_by(file, lambda path: path.symlink_to("nowhere"))),
        ("a pipe", "is not a plain file", replace_by(file, os.mkfifo)),
        ("a folder", "is not a plain file", replace_by(file, _folder_with_content)),
    )
}

NOT_THE_FILES: dict[str, tuple[str, Harm]] = {
    "manifest missing": ("its manifest is missing", remove(manifest)),
    "bank missing": ("its bank file is missing", remove(bank)),
    "generation missing": ("its manifest is missing", remove(generation)),
    "generation a link": ("its revision is a link", link(generation)),
    "generation a file": ("its manifest is missing", replace_by(generation, lambda path: path.write_text(""))),
    "reference a link": ("its folder is a link", link(folder)),
    "reference of another": ("its pointer belongs to another reference", copy(folder, "other")),
    "generation of another": ("its manifest belongs to another revision", copy(generation, f"other/{OTHER.revision}")),
    "bank of another": ("does not match its revision", copy(bank, f"other/{OTHER.revision}/bank.safetensors")),
}
