"""The folder store on a disk that fails at any step, and the order of steps that makes a save safe."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.disk import CLEANUP, STEPS, FailingDisk, failing
from fakes.references import content, make_reference
from fakes.store_files import files_in, files_of
from safetensors import SafetensorError

from patchserve_server.domain.errors import (
    PatchserveError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
    StorageFullError,
    StorageUnavailableError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import FolderReferenceStore, bank_file

OTHER, OLDER, OLD, NEW = make_reference("other", 9), *(make_reference(seed=seed) for seed in range(3))
SAME_BUT_LATER = dataclasses.replace(OLD, update_time=OLD.update_time + timedelta(days=1))


@dataclasses.dataclass(frozen=True)
class Action:
    """A change of the reference "parcel", and its state before and after: the current and the previous revision."""

    before: tuple[Reference, ...]
    act: Callable[[FolderReferenceStore], object]
    after: tuple[Reference, ...]


ACTIONS = {
    "first save": Action((), lambda store: store.save(NEW), (NEW,)),
    "second save": Action((OLD,), lambda store: store.save(NEW), (NEW, OLD)),
    "replace": Action((OLD, OLDER), lambda store: store.save(NEW), (NEW, OLD)),
    "save the same again": Action((OLD, OLDER), lambda store: store.save(SAME_BUT_LATER), (SAME_BUT_LATER, OLDER)),
    "save the previous one": Action((OLD, NEW), lambda store: store.save(NEW), (NEW, OLD)),
    "restore": Action((OLD, NEW), lambda store: store.restore(ReferenceId("parcel"), NEW.revision), (NEW, OLD)),
    "delete": Action((OLD, OLDER), lambda store: store.delete(ReferenceId("parcel")), ()),
}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderReferenceStore]:
    store = FolderReferenceStore(tmp_path)
    yield store
    store.close()


def prepared(root: Path, action: Action) -> FolderReferenceStore:
    store = FolderReferenceStore(root)
    store.save(OTHER)
    for reference in reversed(action.before):
        store.save(reference)
    return store


def attempt(store: FolderReferenceStore, action: Action, names: tuple[str, ...], disk: FailingDisk) -> Exception | None:
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            failing(patch, name, disk)
        try:
            action.act(store)
        except PatchserveError as error:
            return error
    return None


def stored_content(store: FolderReferenceStore) -> list[tuple[object, ...]]:
    assert content(store.load(ReferenceId("other"))) == content(OTHER)
    found = []
    with suppress(ReferenceNotFoundError, RevisionNotKeptError):
        found.append(content(store.load(ReferenceId("parcel"))))
        found.append(content(store.load_previous(ReferenceId("parcel"))))
    return found


def expected(state: tuple[Reference, ...]) -> list[tuple[object, ...]]:
    return [content(reference) for reference in state]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ACTIONS)
def test_an_error_of_the_disk_leaves_the_old_revision_and_nothing_else(tmp_path: Path, name: str, code: int) -> None:
    action = ACTIONS[name]
    for step in range(100):
        root = tmp_path / str(step)
        store = prepared(root, action)
        disk = FailingDisk(step, code)
        error = attempt(store, action, STEPS, disk)
        if error is not None:
            assert type(error) is (StorageFullError if code == errno.ENOSPC else StorageUnavailableError)
            assert str(tmp_path) not in str(error)
            assert '"parcel"' in str(error)
        state = action.after if error is None else action.before
        assert stored_content(store) == expected(state)
        if error is not None:  # otherwise the cleanup failed, and the next start repeats it
            assert files_in(root) == files_of(OTHER, *state)
        store.close()
        again = FolderReferenceStore(root)
        assert stored_content(again) == expected(state)
        assert files_in(root) == files_of(OTHER, *state)
        if state:
            again.delete(ReferenceId("parcel"))
        again.save(NEW)
        assert stored_content(again) == expected((NEW,))
        again.close()
        if not disk.reached:
            break
    assert error is None
    assert step >= 3, "too few steps: the fakes are not called"


@pytest.mark.parametrize("name", ACTIONS)
def test_a_disk_that_breaks_leaves_the_old_or_the_new_revision(tmp_path: Path, name: str) -> None:
    action = ACTIONS[name]
    for step in range(100):
        root = tmp_path / str(step)
        store = prepared(root, action)
        disk = FailingDisk(step, errno.EROFS, for_good=True)
        error = attempt(store, action, STEPS + CLEANUP, disk)
        assert error is None or type(error) is StorageUnavailableError
        store.close()
        repaired = FolderReferenceStore(root)
        state = stored_content(repaired)
        assert state in (expected(action.before), expected(action.after))
        references = action.before if state == expected(action.before) else action.after
        assert files_in(root) == files_of(OTHER, *references)
        repaired.close()
        if not disk.reached:
            break
    assert error is None
    assert step >= 3, "too few steps: the fakes are not called"


@pytest.mark.parametrize("name", ["replace", "restore", "delete"])
def test_a_failed_cleanup_does_not_fail_the_save_or_deletion(tmp_path: Path, name: str) -> None:
    action = ACTIONS[name]
    store = prepared(tmp_path, action)
    disk = FailingDisk(0, errno.EIO, for_good=True)
    assert attempt(store, action, CLEANUP, disk) is None
    assert disk.reached
    assert stored_content(store) == expected(action.after)
    assert files_in(tmp_path) > files_of(OTHER, *action.after)
    store.close()
    again = FolderReferenceStore(tmp_path)
    assert files_in(tmp_path) == files_of(OTHER, *action.after)
    again.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EFBIG, StorageFullError),
        (errno.EROFS, StorageUnavailableError),
        (errno.EACCES, StorageUnavailableError),
        (errno.EIO, StorageUnavailableError),
        (errno.EMFILE, StorageUnavailableError),
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_each_system_error_becomes_its_domain_error(
    store: FolderReferenceStore, monkeypatch: pytest.MonkeyPatch, step: str, code: int, kind: type[PatchserveError]
) -> None:
    store.save(OLD)
    failing(monkeypatch, step, lambda: code)
    with pytest.raises(kind, match="unchanged") as caught:
        store.save(NEW)
    assert os.strerror(code) in str(caught.value)


def test_an_unknown_library_error_means_that_the_store_is_unavailable(
    store: FolderReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_file, "save_file", raiser(SafetensorError("something else")))
    with pytest.raises(StorageUnavailableError, match="input/output error"):
        store.save(NEW)


def test_a_foreign_file_is_not_overwritten(store: FolderReferenceStore, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageUnavailableError, match="File exists"):
        store.save(make_reference("notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_disk_that_cannot_be_read_does_not_count_as_damage(
    store: FolderReferenceStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.save(OLD)
    with monkeypatch.context() as patch:
        failing(patch, "os.open", lambda: code)
        with pytest.raises(StorageUnavailableError):
            store.load(ReferenceId("parcel"))
    with monkeypatch.context() as patch:
        failing(patch, "os.stat", lambda: code)
        failing(patch, "os.lstat", lambda: code)
        with pytest.raises(StorageUnavailableError):
            store.load(ReferenceId("parcel"))
        with pytest.raises(StorageUnavailableError):
            store.delete(ReferenceId("parcel"))
        with pytest.raises(StorageUnavailableError):
            store.list_ids()
    with monkeypatch.context() as patch:
        patch.setattr(bank_file, "safe_open", raiser(SafetensorError(f"{os.strerror(code)} (os error {code})")))
        with pytest.raises(StorageUnavailableError):
            store.load(ReferenceId("parcel"))
    assert content(store.load(ReferenceId("parcel"))) == content(OLD)


def raiser(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fail


def test_files_are_on_the_disk_before_the_pointer_names_them(
    store: FolderReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that makes a power loss harmless. Killing a process cannot show it."""
    steps: list[str] = []
    names: dict[int, str] = {}

    def record_open(path: Any, *args: Any, **kwargs: Any) -> int:
        descriptor = real_open(path, *args, **kwargs)
        names[descriptor] = Path(path).name
        return descriptor

    def record_move(source: Path, target: Path) -> None:
        steps.append(f"{Path(source).name} -> {Path(target).parent.name}/{Path(target).name}")
        real_move(source, target)

    real_open, real_move = os.open, os.rename
    monkeypatch.setattr(os, "open", record_open)
    monkeypatch.setattr(os, "rename", record_move)
    monkeypatch.setattr(os, "replace", record_move)
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(f"sync {names[descriptor]}"))
    root = store._root.name

    def written(reference: Reference) -> list[str]:
        generation = ["sync bank.safetensors", "sync manifest.json", f"sync {reference.revision}"]
        return [*generation, "sync current.json", "sync parcel"]

    store.save(OLD)
    assert steps == [*written(OLD), f"parcel -> {root}/parcel", f"sync {root}"]
    steps.clear()
    store.save(NEW)
    assert steps == [
        *written(NEW),
        f"{NEW.revision} -> parcel/{NEW.revision}",
        "sync parcel",
        "sync old.json",
        "current.json -> parcel/current.json",
        "sync parcel",
    ]
    steps.clear()
    store.restore(ReferenceId("parcel"), OLD.revision)
    assert steps == ["sync current.json", "sync old.json", "current.json -> parcel/current.json", "sync parcel"]
    steps.clear()
    store.delete(ReferenceId("parcel"))
    assert steps == ["current.json -> parcel/deleted.json", "sync parcel"]
