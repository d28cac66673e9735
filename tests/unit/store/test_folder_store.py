"""The folder store: its files, its lock, and what it removes."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from fakes.disk import failing
from fakes.references import content, make_reference, model_content, named
from fakes.store_files import files_in, files_of
from numpy.typing import NDArray

from patchserve_server.domain.errors import (
    ReferenceDamagedError,
    RevisionNotKeptError,
    StartupError,
    StorageFullError,
    StorageUnavailableError,
)
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_options import MAX_REGION_POINTS, RelativePoint
from patchserve_server.store import FolderReferenceStore, folder
from patchserve_server.store.generation import OpenGeneration, write_generation

OLD, NEW = make_reference(seed=1), make_reference(seed=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[FolderReferenceStore]:
    store = FolderReferenceStore(root)
    yield store
    store.close()


def test_saved_files_are_as_documented(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.save(NEW)
    assert files_in(root) == files_of(NEW, OLD)
    assert (root / ".lock").is_file()
    arrays = safetensors.numpy.load_file(root / "parcel" / NEW.revision / "bank.safetensors")
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: getattr(NEW.model.bank, name).tobytes()
        for name in ("patches", "image_index", "grid_index", "spacing", "inputs")
    }
    pointer = json.loads((root / "parcel/current.json").read_bytes())
    assert pointer == {
        "format_version": 3,
        "reference_id": "parcel",
        "revision": NEW.revision,
        "create_time": "2025-01-01T00:00:00Z",
        "update_time": "2025-01-01T00:00:02Z",
        "operation": "tune",
        "previous": {"revision": OLD.revision, "update_time": "2025-01-01T00:00:01Z", "operation": "append"},
    }


def test_a_pointer_from_before_operations_were_kept_loads(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.save(NEW)
    file = root / "parcel/current.json"
    pointer = json.loads(file.read_bytes()) | {"format_version": 2}
    del pointer["operation"], pointer["previous"]["operation"]
    file.write_text(json.dumps(pointer))
    parcel = ReferenceId("parcel")
    assert content(store.load(parcel)) == content(dataclasses.replace(NEW, operation=None))
    assert content(store.load_previous(parcel)) == content(dataclasses.replace(OLD, operation=None))
    assert json.loads(file.read_bytes()) == pointer  # a reader changes nothing
    store.restore(parcel, OLD.revision)
    assert json.loads(file.read_bytes())["format_version"] == 3
    assert store.load(parcel).operation is None


def test_files_of_an_older_writer_that_follows_the_documentation_load(store: FolderReferenceStore, root: Path) -> None:
    """Pointer and manifest of version 1."""
    generation = root / "parcel" / OLD.revision
    generation.mkdir(parents=True)
    bank = OLD.model.bank
    names = ("spacing", "inputs", "image_index", "grid_index", "patches")
    arrays: dict[str, NDArray[Any]] = {name: getattr(bank, name) for name in names}
    safetensors.numpy.save_file(arrays, generation / "bank.safetensors", metadata={"made by": "another writer"})
    manifest = (
        '{"calibration": {"method": "leave_one_out", "image_threshold": 7e-1, "patch_threshold": 0.9, "normal_scores":'
        ' {"count": 3, "min": 0.25, "mean": 0.3333333333333333, "stddev": 0.1, "max": 0.5}},'
        '"options": {"search_radius": 25e-2, "region_of_interest": [[[0, 0.0], [1, 0], [5E-1, 0.750]]], "coreset":'
        ' {"ratio": 0.1, "max_patches": null}, "profile": "notebook", "approximate_search": false},'
        '"format_version": 1, "revision": "%s", "spec": {"backbone": "made-up", '
        '"weights_digest": "%s", "preprocessing": "none", "precision": "fp32"}}'
    )
    (generation / "manifest.json").write_text(manifest % (OLD.revision, "ab" * 32))
    pointer = {"format_version": 1, "reference_id": "parcel", "revision": OLD.revision}
    times = {"create_time": "2025-01-01T00:00:00Z", "update_time": "2025-01-01T00:00:01Z"}
    (root / "parcel/current.json").write_text(json.dumps(pointer | times))
    loaded = store.load(ReferenceId("parcel"))
    assert content(loaded) == content(dataclasses.replace(without_scores(OLD), operation=None))
    assert (loaded.revision, loaded.previous_revision) == (OLD.revision, None)
    with pytest.raises(RevisionNotKeptError, match="no previous revision is kept"):
        store.load_previous(ReferenceId("parcel"))
    store.save(NEW)
    assert content(store.load_previous(ReferenceId("parcel"))) == content(
        dataclasses.replace(without_scores(OLD), operation=None)
    )
    store.restore(ReferenceId("parcel"), OLD.revision)
    assert content(store.load(ReferenceId("parcel"))) == content(
        dataclasses.replace(without_scores(OLD), operation=None)
    )


def without_scores(reference: Reference) -> Reference:
    """As a manifest of version 1 or 2 has it."""
    spread = dataclasses.replace(reference.model.calibration.normal_scores, scores=())
    return without_rates(reference, normal_scores=spread)


def without_rates(reference: Reference, **changes: Any) -> Reference:
    """As a manifest of version 1 to 3 has it."""
    calibration = reference.model.calibration
    calibration = dataclasses.replace(calibration, false_alarm_rate=None, false_alarm_rate_upper=None, **changes)
    return without_views(reference, calibration=calibration)


def without_views(reference: Reference, **changes: Any) -> Reference:
    """As a manifest of version 1 to 4 has it."""
    model = dataclasses.replace(reference.model, views_per_image=None, **changes)
    return dataclasses.replace(reference, model=model)


def remove_what_is_newer_than_version_3(manifest: Any) -> None:
    for option in ("input", "views", "scales", "false_alarm_rate", "white_level"):
        del manifest["options"][option]
    del manifest["calibration"]["false_alarm_rate"], manifest["calibration"]["false_alarm_rate_upper"]


def test_a_manifest_of_version_2_has_no_list_of_scores(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    file = root / "parcel" / OLD.revision / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["format_version"] = 2
    del manifest["views_per_image"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(ReferenceDamagedError, match="a field in another form"):
        store.load(ReferenceId("parcel"))
    del manifest["calibration"]["normal_scores"]["scores"]
    remove_what_is_newer_than_version_3(manifest)
    file.write_text(json.dumps(manifest))
    assert content(store.load(ReferenceId("parcel"))) == content(without_scores(OLD))


def test_a_manifest_of_version_3_has_no_input_options_and_no_rates(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    file = root / "parcel" / OLD.revision / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["format_version"] = 3
    del manifest["views_per_image"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(ReferenceDamagedError, match="a field in another form"):
        store.load(ReferenceId("parcel"))
    remove_what_is_newer_than_version_3(manifest)
    file.write_text(json.dumps(manifest))
    assert content(store.load(ReferenceId("parcel"))) == content(without_rates(OLD))


def test_a_manifest_of_version_4_has_no_number_of_views(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    file = root / "parcel" / OLD.revision / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["format_version"] = 4
    file.write_text(json.dumps(manifest))
    with pytest.raises(ReferenceDamagedError, match="views_per_image: Extra inputs"):
        store.load(ReferenceId("parcel"))
    del manifest["views_per_image"]
    file.write_text(json.dumps(manifest))
    assert content(store.load(ReferenceId("parcel"))) == content(without_views(OLD))


def test_a_second_server_on_the_folder_is_refused(store: FolderReferenceStore, root: Path) -> None:
    with pytest.raises(StartupError, match="A server already uses"):
        FolderReferenceStore(root)
    store.close()
    FolderReferenceStore(root).close()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot be created, locked, read or written"):
        FolderReferenceStore(tmp_path / "file")
    with pytest.raises(StartupError, match="cannot be created, locked, read or written"):
        FolderReferenceStore(tmp_path / "file/below")


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("io.open", errno.EROFS, "Read-only file system"),
        ("fcntl.flock", errno.ENOLCK, "No locks available"),
        ("pathlib.Path.iterdir", errno.EIO, "Input/output error"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, root: Path, name: str, code: int, reason: str
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, name, lambda: code)
        with pytest.raises(StartupError, match=reason):
            FolderReferenceStore(root)
    FolderReferenceStore(root).close()


def test_a_start_removes_leftovers_and_keeps_foreign_files(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.close()
    generation = root / "parcel" / OLD.revision
    leftovers = [
        root / ".patchserve-save-x" / NEW.revision / "bank.safetensors",
        root / "parcel" / NEW.revision / "bank.safetensors",
        root / "parcel" / NEW.revision / "manifest.json",
        root / "parcel" / "deleted.json",
        root / "gone" / NEW.revision / "manifest.json",
        root / "gone" / "deleted.json",
    ]
    foreign = [
        root / "lost+found" / NEW.revision / "manifest.json",
        root / "notes.txt",
        root / "parcel" / "notes.txt",
        root / "photos" / "one.jpg",
        root / "layers" / ("c" * 64) / "data",
    ]
    for path in leftovers + foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "gone/deleted.json").write_bytes(
        (root / "parcel/current.json").read_bytes().replace(b'"parcel"', b'"gone"')
    )
    again = FolderReferenceStore(root)
    assert files_in(root) == files_of(OLD) | {str(path.relative_to(root)) for path in foreign}
    assert not (root / "gone").exists()
    assert again.list_ids() == ["parcel"]
    again.delete(ReferenceId("parcel"))
    assert not generation.exists()
    assert all(path.exists() for path in foreign)
    again.close()


def test_a_start_keeps_the_previous_revision_and_removes_others(store: FolderReferenceStore, root: Path) -> None:
    for seed in (1, 2, 3):
        store.save(make_reference(seed=seed))
    store.close()
    write_generation(root / "parcel" / OLD.revision, OLD)
    with closing(FolderReferenceStore(root)) as again:
        assert files_in(root) == files_of(make_reference(seed=3), NEW)
        assert again.load(ReferenceId("parcel")).previous_revision == NEW.revision
        assert content(again.load_previous(ReferenceId("parcel"))) == content(NEW)


def test_a_previous_revision_that_somebody_removed_is_not_promised(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.save(NEW)
    shutil.rmtree(root / "parcel" / OLD.revision)
    assert store.load(ReferenceId("parcel")).previous_revision is None
    with pytest.raises(ReferenceDamagedError, match="cannot be restored: its manifest is missing"):
        store.load_previous(ReferenceId("parcel"))
    assert content(store.load(ReferenceId("parcel"))) == content(NEW)


def test_a_damaged_revision_is_not_kept_and_the_one_before_it_is(store: FolderReferenceStore, root: Path) -> None:
    newest = make_reference(seed=3)
    store.save(OLD)
    store.save(NEW)
    (root / "parcel" / NEW.revision / "bank.safetensors").unlink()
    kept = store.save(newest)
    assert kept == KeptRevision(OLD.revision, 0)
    assert files_in(root) == files_of(newest, OLD)


def test_a_previous_revision_that_is_a_link_is_refused_and_stays(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.save(NEW)
    outside = root.parent / "outside"
    shutil.move(root / "parcel" / OLD.revision, outside)
    (root / "parcel" / OLD.revision).symlink_to(outside)
    store.close()
    with closing(FolderReferenceStore(root)) as again:
        with pytest.raises(ReferenceDamagedError, match="its revision is a link to another folder"):
            again.load_previous(ReferenceId("parcel"))
        again.save(make_reference(seed=3))
    assert sorted(path.name for path in outside.iterdir()) == ["bank.safetensors", "manifest.json"]


def test_a_start_removes_nothing_under_a_damaged_pointer(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    store.close()
    (root / "parcel/current.json").write_text("{")
    before = files_in(root)
    FolderReferenceStore(root).close()
    assert files_in(root) == before


def test_a_generation_without_a_pointer_is_kept_and_refused_by_name(store: FolderReferenceStore, root: Path) -> None:
    """No kill leaves it so: something removed or renamed the pointer."""
    store.save(OLD)
    store.close()
    (root / "parcel/current.json").rename(root / "parcel/currenu.json")
    with closing(FolderReferenceStore(root)) as again:
        assert again.list_ids() == ["parcel"]
        with pytest.raises(ReferenceDamagedError, match="its pointer is missing"):
            again.load(ReferenceId("parcel"))
        again.save(OLD)
        assert content(again.load(ReferenceId("parcel"))) == content(OLD)
        (root / "parcel/current.json").unlink()
        again.delete(ReferenceId("parcel"))
        assert again.list_ids() == []


def test_a_failed_repair_keeps_the_generation_that_the_damaged_pointer_named(
    store: FolderReferenceStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(OLD)
    (root / "parcel/current.json").write_text("{")
    before = files_in(root)
    with monkeypatch.context() as patch:
        failing(patch, "patchserve_server.store.publishing.swap_pointer", lambda: errno.ENOSPC)
        with pytest.raises(StorageFullError):
            store.save(OLD)
    assert files_in(root) == before
    store.save(OLD)
    assert content(store.load(ReferenceId("parcel"))) == content(OLD)


@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_was_deleted_while_the_server_runs_is_not_written(
    store: FolderReferenceStore, root: Path, made_again: bool
) -> None:
    store.save(OLD)
    shutil.rmtree(root)
    other = FolderReferenceStore(root) if made_again else None
    root.mkdir(exist_ok=True)
    with pytest.raises(StorageUnavailableError, match="deleted or replaced while the server runs"):
        store.save(NEW)
    with pytest.raises(StorageUnavailableError, match="deleted or replaced while the server runs"):
        store.delete(ReferenceId("parcel"))
    assert files_in(root) == set()
    if other is not None:
        other.close()


def test_an_open_generation_can_be_read_after_a_save_or_a_deletion(store: FolderReferenceStore, root: Path) -> None:
    store.save(OLD)
    reader = OpenGeneration(root / "parcel" / OLD.revision)
    store.save(NEW)
    late_reader = OpenGeneration(root / "parcel" / NEW.revision)
    store.delete(ReferenceId("parcel"))
    assert files_in(root) == set()
    assert model_content(reader.read().model) == model_content(OLD.model)
    assert model_content(late_reader.read().model) == model_content(NEW.model)


@pytest.mark.parametrize("change", ["save", "delete"])
def test_a_generation_is_not_removed_between_reading_its_pointer_and_opening_it(
    store: FolderReferenceStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    store.save(OLD)
    thread = threading.Thread(
        target=store.save if change == "save" else store.delete, args=(NEW,) if change == "save" else ("parcel",)
    )

    def open_late(place: Path) -> OpenGeneration:
        thread.start()
        thread.join(timeout=0.5)  # it cannot end yet; the wait only gives it time to begin
        return OpenGeneration(place)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "OpenGeneration", open_late)
        assert content(store.load(ReferenceId("parcel"))) == content(OLD)
    thread.join()
    assert store.list_ids() == (["parcel"] if change == "save" else [])


def test_the_longest_region_of_interest_can_be_loaded_again(store: FolderReferenceStore) -> None:
    fraction = 1.2345678901234568e-300  # no number needs more characters
    points: tuple[RelativePoint, ...] = ((fraction, fraction),) * MAX_REGION_POINTS
    polygons = [points[start : start + 3] for start in range(0, MAX_REGION_POINTS - 3, 3)]
    polygons[-1] += points[3 * len(polygons) :]
    reference = named(with_options(region_of_interest=tuple(polygons)))
    store.save(reference)
    assert content(store.load(ReferenceId("parcel"))) == content(reference)


def with_options(**changes: Any) -> ReferenceModel:
    return dataclasses.replace(OLD.model, options=dataclasses.replace(OLD.model.options, **changes))


@pytest.mark.parametrize(
    "reference",
    [
        dataclasses.replace(OLD, revision=NEW.revision),
        dataclasses.replace(OLD, update_time=datetime(2025, 1, 1)),  # noqa: DTZ001
        named(with_options(search_radius=1)),
    ],
    ids=[
        "another revision",
        "no time zone",
        "radius of an int",
    ],
)
def test_content_that_could_not_be_loaded_again_is_not_saved(
    store: FolderReferenceStore, root: Path, reference: Reference
) -> None:
    store.save(NEW)
    with pytest.raises(ValueError, match=r"."):
        store.save(reference)
    assert files_in(root) == files_of(NEW)
    assert content(store.load(ReferenceId("parcel"))) == content(NEW)
