"""Whatever bit of a store flips, a start destroys nothing that was intact, and says what is damaged."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fakes.references import make_reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import ReferenceDamagedError, RevisionNotKeptError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.store import FolderReferenceStore, check_store, restore
from patchserve_server.store.generation import write_generation

ID = ReferenceId("parcel")
CURRENT, PREVIOUS, LEFT_BEHIND = (
    dataclasses.replace(
        make_reference(seed=seed, images=1, patches=1, dim=1, size_px=1),
        images=(ReferenceImage("a.png", "image/png", 1, 1, 9),),
    )
    for seed in (1, 2, 3)
)
GENERATION_FILES = ("manifest.json", "bank.safetensors")
FILES = {
    "pointer": "current.json",
    **{
        f"{name} {file}": f"{reference.revision}/{file}"
        for name, reference in (("current", CURRENT), ("previous", PREVIOUS), ("left behind", LEFT_BEHIND))
        for file in GENERATION_FILES
    },
}


ALL = {reference.revision for reference in (CURRENT, PREVIOUS, LEFT_BEHIND)}


class Store:
    """A store with a reference, its previous revision, and a generation that a killed save left behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ID
        with closing(FolderReferenceStore(root)) as store:
            store.save(PREVIOUS)
            store.save(CURRENT)
        self._write(LEFT_BEHIND)
        self._original = {file: (self.folder / file).read_bytes() for file in FILES.values()}

    def _write(self, reference: Reference) -> None:
        write_generation(self.folder / reference.revision, reference)

    def repair(self) -> None:
        """Put every file back that is not as it was."""
        for file, data in self._original.items():
            path = self.folder / file
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def generations(self) -> set[str]:
        """The generations that are on the disk, with both files."""
        return {
            reference.revision
            for reference in (CURRENT, PREVIOUS, LEFT_BEHIND)
            if all((self.folder / reference.revision / file).is_file() for file in GENERATION_FILES)
        }

    def started(self) -> tuple[str, str]:
        """Start a server on it. Returns the current and the previous revision; empty if it refuses them by name."""
        served = previous = ""
        with closing(FolderReferenceStore(self.root)) as store:
            assert store.list_ids() == [ID]
            with suppress(ReferenceDamagedError):
                served = store.load(ID).revision
            with suppress(ReferenceDamagedError, RevisionNotKeptError):
                previous = store.load_previous(ID).revision
        return served, previous

    def start(self) -> str:
        """The served revision. Only what an intact pointer to intact generations leaves behind may be removed."""
        served, previous = self.started()
        assert served in ("", CURRENT.revision)
        assert previous in ("", PREVIOUS.revision)
        assert self.generations() == ({served, previous} if served and previous else ALL)
        return served


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def flips(path: Path, bits: Iterable[int]) -> Iterator[None]:
    """The file with each of its bits flipped, one after the other; `bits` are those of each byte."""
    original = path.read_bytes()
    for position, bit in itertools.product(range(len(original)), bits):
        damaged = bytearray(original)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        yield


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_no_flipped_bit_costs_an_intact_generation(store: Store, file: str) -> None:
    # A start does not read what is left behind, and the previous revision only if something is: a few bits are enough.
    seldom_read: dict[str, Iterable[int]] = {LEFT_BEHIND.revision: [0], PREVIOUS.revision: [0, 5]}
    bits = seldom_read.get(file.partition("/")[0], range(8))
    for _ in flips(store.folder / file, bits):
        store.start()
        store.repair()
    assert store.start() == CURRENT.revision


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_check_tells_what_is_intact_and_a_restore_brings_it_back(store: Store, file: str) -> None:
    for number, _ in enumerate(flips(store.folder / file, [3])):
        if number % 3:
            continue
        (checked,) = check_store(store.root)
        intact = {generation.revision for generation in checked.intact_generations}
        assert intact >= ALL - {file.partition("/")[0]}
        if number % 2:
            assert store.start() == ("" if checked.problem else CURRENT.revision)
        else:
            revision = sorted(intact)[number // 6 % len(intact)]
            assert restore(store.root, ID, revision).revision == revision
            assert store.started()[0] == revision
        store.repair()
    assert not list(store.root.glob(".patchserve-save-*"))


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "doubled": lambda path: path.write_bytes(path.read_bytes() * 2),
    "removed": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("lost")),
    "a folder": replaced_by_a_folder,
}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(list(FILES.values())), st.sampled_from(list(HARMS)), min_size=1, max_size=4))
def test_no_other_damage_costs_an_intact_generation(store: Store, harms: dict[str, str]) -> None:
    shutil.rmtree(store.folder)
    store.repair()
    for file, harm in harms.items():
        HARMS[harm](store.folder / file)
    before = {path for path in store.root.rglob("*") if path.is_file()}
    served, previous = store.started()
    after = {path for path in store.root.rglob("*") if path.is_file()}
    assert bool(served) == (not any(file.startswith(("current", CURRENT.revision)) for file in harms))
    assert bool(previous) == (not any(file.startswith(("current", PREVIOUS.revision)) for file in harms))
    if not served or not previous:
        assert after == before, "nothing is removed"
    assert store.generations() >= {served, previous} - {""}
