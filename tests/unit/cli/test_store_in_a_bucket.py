"""`patchserve-server store check|gc|copy|restore` on buckets, and between them and folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.references import content, make_reference

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import FolderReferenceStore
from patchserve_server.store.objects import MemoryObjectStorage, ObjectStorage, open_object_storage
from patchserve_server.store.objects.store_file import open_store_file
from patchserve_server.store.shared import DigestCache, SharedReferenceStore
from patchserve_server.store.shared.pointers import Pointers

OLD, NEW, OTHER = make_reference(seed=1), make_reference(seed=2, images=1), make_reference("other", 3)
PARCEL, OTHER_ID = ReferenceId("parcel"), ReferenceId("other")
Run = Callable[..., tuple[int | str | None, str, str]]
_NAMES = count()


@pytest.fixture
def url() -> str:
    """A bucket with the references "parcel", which has a previous revision, and "other"."""
    url = f"memory://cli-{next(_NAMES)}"
    open_store_file(open_object_storage(url))
    with served(url) as store:
        for reference in (OLD, NEW, OTHER):
            store.save(reference)
    return url


@pytest.fixture
def objects(url: str) -> ObjectStorage:
    return open_object_storage(url)


@contextmanager
def served(url: str) -> Iterator[SharedReferenceStore]:
    """The store as a server opens it, with an empty cache."""
    with (
        TemporaryDirectory() as folder,
        closing(SharedReferenceStore(open_object_storage(url), DigestCache(Path(folder), 2**30))) as store,
    ):
        yield store


def all_of(objects: ObjectStorage) -> dict[str, bytes]:
    found = ((listed.key, objects.get(listed.key, max_bytes=2**30)) for listed in objects.list(""))
    return {key: stored.data for key, stored in found if stored is not None}


def bank_keys(objects: ObjectStorage) -> list[str]:
    return [listed.key for listed in objects.list("banks/")]


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_a_check_lists_current_and_previous_revisions_and_changes_nothing(
    run: Run, url: str, objects: ObjectStorage, quick: list[str]
) -> None:
    before = all_of(objects)
    code, stdout, _ = run("check", "--store", url, *quick)
    assert code == 0
    lines = stdout.splitlines()
    assert [lines[0], lines[2], lines[-1]] == ["other: intact", "parcel: intact", "2 references: 2 intact, 0 damaged"]
    assert f"  {NEW.revision[:12]} (current) intact, 1 image, 60 patches, saved " in stdout
    assert f"  {OLD.revision[:12]} (previous) intact, 3 images, 60 patches, saved " in stdout
    assert all_of(objects) == before


def test_every_damage_of_a_bucket_is_found(run: Run, url: str, objects: ObjectStorage) -> None:
    keys = {listed.key: listed.size_bytes for listed in objects.list("")}
    for key in keys:
        if not key.startswith(("banks/", "manifests/", "references/")):
            continue
        stored = objects.get(key, max_bytes=2**30)
        assert stored is not None
        middle = len(stored.data) // 2
        objects.put(key, stored.data[:middle] + bytes([stored.data[middle] ^ 1]) + stored.data[middle + 1 :])
        document = json.loads(run("check", "--store", url, "--output", "json")[1])
        problems = [each["problem"] for reference in document["references"] for each in reference["generations"]]
        problems += [reference["problem"] for reference in document["references"]]
        assert any(problems), key
        objects.put(key, stored.data)


def test_a_damaged_current_revision_is_told_with_the_command_that_restores_the_previous_one(
    run: Run, url: str, objects: ObjectStorage
) -> None:
    pointer = Pointers(objects).read(PARCEL).pointer
    assert pointer is not None
    objects.put(f"banks/{pointer.current.bank.digest}", b"damaged")
    code, stdout, _ = run("check", "--store", url)
    assert code == 1
    assert f"{NEW.revision[:12]} (current) damaged: its bank file does not match its digest" in stdout
    assert f"patchserve-server store restore --store {url} parcel\n" in stdout
    code, stdout, _ = run("restore", "parcel", "--store", url)
    assert (code, stdout) == (0, f"Reference parcel is at revision {OLD.revision[:12]} with 3 images.\n")
    with served(url) as store:
        assert content(store.load(PARCEL)) == content(OLD)


def test_a_missing_bank_is_told_and_one_in_the_trash_is_put_back(run: Run, url: str, objects: ObjectStorage) -> None:
    for key in bank_keys(objects):
        objects.copy(key, "trash/" + key.removeprefix("banks/"))
        objects.delete(key)
    code, stdout, _ = run("check", "--store", url, "--quick")
    assert code == 1
    assert "damaged: its bank file is in the trash" in stdout
    code, stdout, stderr = run("check", "--store", url, "--repair")
    assert (code, stderr) == (0, "Corrected the index for 0 references, put back 3 objects.\n")
    for key in bank_keys(objects):
        objects.delete(key)
        objects.delete("trash/" + key.removeprefix("banks/"))
    code, stdout, _ = run("check", "--store", url)
    assert code == 1
    assert stdout.count("its bank file is missing") == 5, "two in the lines of the references"


def test_an_index_that_differs_from_the_pointers_is_told_and_corrected(
    run: Run, url: str, objects: ObjectStorage
) -> None:
    for listed in list(objects.list("index/")):
        objects.delete(listed.key)
    code, stdout, _ = run("check", "--store", url, "--quick")
    assert code == 1
    assert "The root of the index is missing or damaged." in stdout
    assert "The index differs from 2 pointers: other, parcel" in stdout
    code, stdout, stderr = run("check", "--store", url, "--repair")
    assert (code, stderr) == (0, "Corrected the index for 2 references, put back 0 objects.\n")
    with served(url) as store:
        assert store.list_ids() == [OTHER_ID, PARCEL]


def test_what_is_no_pointer_is_told_and_left_alone(run: Run, url: str, objects: ObjectStorage) -> None:
    objects.put("references/what is this", b"")
    code, stdout, _ = run("check", "--store", url)
    assert code == 0
    assert "references/what is this is not understood" in stdout
    assert objects.find("references/what is this")
    code, stdout, _ = run("gc", "--store", url)
    assert code == 1
    assert stdout.startswith("Nothing is removed, because what these use is not known:")


def test_gc_moves_what_is_unused_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC) - timedelta(hours=30)
    objects = MemoryObjectStorage("memory://old", now=lambda: now)
    monkeypatch.setattr("patchserve_server.cli.store.where.open_object_storage", lambda _: objects)
    open_store_file(objects)
    with TemporaryDirectory() as folder:
        store = SharedReferenceStore(objects, DigestCache(Path(folder), 2**30))
        for reference in (OTHER, OLD, NEW):
            store.save(reference)
        store.delete(OTHER_ID)
    before = all_of(objects)
    code, stdout, _ = run("gc", "--store", "memory://old", "--dry-run")
    assert code == 0
    assert stdout.count("would be moved to the trash\n") == 2
    assert "4 objects used, 0 unused and too young, 2 would be moved to the trash (0.0 MiB)" in stdout
    assert all_of(objects) == before
    code, stdout, _ = run("gc", "--store", "memory://old", "--grace", "48")
    assert "4 objects used, 2 unused and too young, 0 moved to the trash" in stdout
    code, stdout, _ = run("gc", "--store", "memory://old")
    assert code == 0
    assert "4 objects used, 0 unused and too young, 2 moved to the trash" in stdout
    assert len(bank_keys(objects)) == 2
    assert objects.find("leases/sweep")


def test_gc_leaves_a_folder_to_its_server(run: Run, tmp_path: Path) -> None:
    with closing(FolderReferenceStore(tmp_path / "store")) as store:
        store.save(NEW)
    code, stdout, _ = run("gc", "--store", tmp_path / "store")
    assert (code, stdout.startswith("A folder has no trash")) == (0, True)


@pytest.mark.parametrize("hours", ["0", "0.5", "a day", "nan", "inf"])
def test_a_grace_that_is_too_short_is_refused(run: Run, url: str, hours: str) -> None:
    code, _, stderr = run("gc", "--store", url, "--grace", hours)
    assert code == 2
    assert "hour" in stderr


def test_references_are_copied_between_folders_and_buckets_with_their_previous_revisions(
    run: Run, url: str, tmp_path: Path
) -> None:
    folder, second = tmp_path / "folder", f"{url}-2"
    code, stdout, stderr = run("copy", url, folder)
    assert (code, stdout) == (0, "2 copied, 0 there already\n")
    assert stderr.splitlines()[0].startswith("1 of 2: other copied (")
    code, stdout, _ = run("copy", folder, second)
    assert (code, stdout) == (0, "2 copied, 0 there already\n")
    with served(second) as store:
        for reference_id, current in ((PARCEL, NEW), (OTHER_ID, OTHER)):
            assert content(store.load(reference_id)) == content(current)
        assert content(store.load_previous(PARCEL)) == content(OLD)
        assert store.load(PARCEL).operation == NEW.operation
        assert store.list_ids() == [OTHER_ID, PARCEL]
    code, stdout, stderr = run("copy", url, second)
    assert (code, stdout) == (0, "0 copied, 2 there already\n")


def test_a_copy_of_some_references_leaves_the_others(run: Run, url: str, tmp_path: Path) -> None:
    code, stdout, stderr = run("copy", url, tmp_path / "folder", "--reference", "other", "--reference", "nobody")
    assert (code, stdout) == (1, "1 copied, 0 there already, 1 not in the source\n")
    assert "2 of 2: nobody not in the source\n" in stderr
    with closing(FolderReferenceStore(tmp_path / "folder")) as store:
        assert store.list_ids() == [OTHER_ID]


def test_a_url_with_a_slash_too_few_does_not_become_a_folder(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message, _, _ = run("copy", url, "s3:/bucket/prefix")
    assert "two slashes after its colon" in str(message)
    assert not list(tmp_path.iterdir())


def test_what_changed_since_the_last_copy_is_copied_and_what_is_damaged_is_told(
    run: Run, url: str, objects: ObjectStorage
) -> None:
    target = f"{url}-2"
    run("copy", url, target)
    with served(url) as store:
        store.save(make_reference(seed=9))
        store.delete(OTHER_ID)
    code, stdout, _ = run("copy", url, target)
    assert (code, stdout) == (0, "1 copied, 0 there already, 1 not in the source\n")
    for key in bank_keys(objects):
        objects.put(key, b"damaged")
    code, stdout, stderr = run("copy", url, f"{url}-3")
    assert (code, stdout) == (1, "0 copied, 0 there already, 1 not in the source, 1 failed\n")
    assert "parcel failed: " in stderr


def test_the_previous_revision_of_a_bucket_is_restored(run: Run, url: str) -> None:
    code, stdout, _ = run("restore", "parcel", "--store", url)
    assert (code, stdout) == (0, f"Reference parcel is at revision {NEW.revision[:12]} with 1 image.\n")
    code, stdout, _ = run("restore", "parcel", "--store", url, "--revision", OLD.revision[:8])
    assert (code, stdout) == (0, f"Reference parcel is at revision {OLD.revision[:12]} with 3 images.\n")
    with served(url) as store:
        assert content(store.load(PARCEL)) == content(OLD)
    code, _, _ = run("restore", "parcel", "--store", url, "--revision", "0000")
    assert code == 'patchserve-server store restore: Reference "parcel" has no intact revision 0000.'


@pytest.mark.parametrize("command", [["check"], ["gc"], ["restore", "parcel"]])
def test_a_bucket_without_a_store_is_told_and_left_empty(run: Run, command: list[str]) -> None:
    code, _, _ = run(*command, "--store", "memory://nothing")
    name = command[0]
    assert code == (
        f"patchserve-server store {name}: There is no store at memory://nothing. Is it the URL of `serve --store`?"
    )
    assert list(open_object_storage("memory://nothing").list("")) == []


def test_a_copy_from_nowhere_makes_nothing(run: Run, tmp_path: Path) -> None:
    assert run("copy", tmp_path / "nowhere", tmp_path / "to")[0] == 2
    assert run("copy", "memory://nothing", tmp_path / "to")[0] != 0
    assert list(tmp_path.iterdir()) == []
    assert str(run("copy", tmp_path, tmp_path)[0]).endswith("FROM and TO are the same store.")


def test_the_store_is_named_by_the_file_of_serve(run: Run, url: str, tmp_path: Path) -> None:
    file = tmp_path / "patchserve.toml"
    file.write_text(f'store = "{url}"\nport = 50052\n')
    assert run("check", "--config", file)[0] == 0
    assert run("gc", "--config", file, "--dry-run")[0] == 0
    assert run("restore", "parcel", "--config", file)[0] == 0
    file.write_text("prot = 50052\n")
    code, _, stderr = run("check", "--config", file)
    assert code == 2
    assert "prot" in stderr


@pytest.mark.parametrize("command", ["check", "gc", "copy"])
def test_credentials_in_a_url_are_refused_and_not_repeated(run: Run, tmp_path: Path, command: str) -> None:
    url = "s3://AKIAIOSFODNN7:wJalrXUtnFEMI@bucket/prefix"
    arguments = [command, url, tmp_path] if command == "copy" else [command, "--store", url]
    code, stdout, stderr = run(*arguments)
    assert code != 0
    assert "wJalrXUtnFEMI" not in f"{code}{stdout}{stderr}"
    assert "redentials" in f"{code}{stderr}"
