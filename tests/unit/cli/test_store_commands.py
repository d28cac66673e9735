"""`patchserve-server store check` and `restore` on a folder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fakes.references import content, make_reference
from fakes.store_files import files_in

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import FolderReferenceStore
from patchserve_server.store.generation import write_generation

OLD, NEW, OTHER = make_reference(seed=1), make_reference(seed=2, images=1), make_reference("other", 3)
Run = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with the references "parcel", beside an older generation, and "other"."""
    with closing(FolderReferenceStore(tmp_path / "store")) as store:
        store.save(NEW)
        store.save(OTHER)
    write_generation(tmp_path / "store/parcel" / OLD.revision, OLD)
    return tmp_path / "store"


def served(root: Path) -> object:
    with closing(FolderReferenceStore(root)) as store:
        return content(store.load(ReferenceId("parcel")))


def damage_pointer(root: Path) -> None:
    pointer = root / "parcel/current.json"
    pointer.write_bytes(pointer.read_bytes().replace(b'"revision"', b'"revisiom"'))


def test_a_check_lists_references_and_generations_and_changes_nothing(run: Run, root: Path) -> None:
    before = files_in(root)
    code, stdout, _ = run("check", "--store", root)
    assert code == 0
    lines = stdout.splitlines()
    assert [lines[0], lines[2], lines[-1]] == ["other: intact", "parcel: intact", "2 references: 2 intact, 0 damaged"]
    assert f"  {NEW.revision[:12]} (current) intact, 1 image, 60 patches, saved " in stdout
    assert f"  {OLD.revision[:12]} intact, 3 images, 60 patches, saved " in stdout
    assert files_in(root) == before


def test_a_check_may_run_beside_a_server_and_a_restore_may_not(run: Run, root: Path) -> None:
    with closing(FolderReferenceStore(root)):
        assert run("check", "--store", root)[0] == 0
        code, stdout, _ = run("restore", "parcel", "--store", root)
    assert stdout == ""
    assert code == (
        f"patchserve-server store restore: A server already uses the store folder {root}. "
        "Stop it, or give each server its own folder."
    )


def test_a_damaged_reference_is_described_and_restored(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_pointer(root)
    monkeypatch.setenv("PATCHSERVE_STORE", str(root))
    code, stdout, _ = run("check")
    assert code == 1
    assert "\nparcel: damaged: its pointer cannot be read (revision: Field required)\n" in stdout
    assert f"patchserve-server store restore --store {root} parcel --revision REVISION\n" in stdout
    document = json.loads(run("check", "--output", "json")[1])
    other, parcel = document["references"]
    assert (other["is_intact"], parcel["is_intact"], parcel["revision"]) == (True, False, "")
    assert parcel["problem"] == "its pointer cannot be read (revision: Field required)"
    assert {(each["revision"], each["problem"], each["image_count"]) for each in parcel["generations"]} == {
        (OLD.revision, "", 3),
        (NEW.revision, "", 1),
    }
    code, _, _ = run("restore", "parcel")
    assert str(code).endswith(" Say which one: --revision.")
    assert run("restore", "parcel", "--revision", "0000")[0] == (
        'patchserve-server store restore: Reference "parcel" has no intact revision 0000.'
    )
    code, stdout, _ = run("restore", "parcel", "--revision", NEW.revision[:8])
    assert (code, stdout) == (0, f"Reference parcel is at revision {NEW.revision[:12]} with 1 image.\n")
    assert run("check")[0] == 0


def test_a_restore_keeps_what_is_known_of_the_times(run: Run, root: Path) -> None:
    os.utime(root / "parcel" / OLD.revision, (1_700_000_000, 1_700_000_000))
    assert run("restore", "parcel", "--revision", OLD.revision, "--store", root)[0] == 0
    with closing(FolderReferenceStore(root)) as store:
        restored = store.load(ReferenceId("parcel"))
    assert restored.create_time == NEW.create_time
    assert restored.update_time.timestamp() == 1_700_000_000
    assert restored.operation is None  # the pointer of the damaged revision knew it
    assert content(dataclasses.replace(restored, update_time=OLD.update_time, operation=OLD.operation)) == content(OLD)


def test_an_intact_reference_stays_as_it_is(run: Run, root: Path) -> None:
    code, stdout, _ = run("restore", "parcel", "--store", root)
    assert (code, stdout) == (0, f"Reference parcel is at revision {NEW.revision[:12]} with 1 image.\n")
    assert served(root) == content(NEW)


def test_a_check_says_which_revision_is_the_previous_one(run: Run, root: Path) -> None:
    with closing(FolderReferenceStore(root)) as store:
        store.save(OLD)
    _, stdout, _ = run("check", "--store", root)
    assert f"  {OLD.revision[:12]} (current) intact, 3 images" in stdout
    assert f"  {NEW.revision[:12]} (previous) intact, 1 image" in stdout
    parcel = json.loads(run("check", "--store", root, "--output", "json")[1])["references"][1]
    assert (parcel["revision"], parcel["previous_revision"]) == (OLD.revision, NEW.revision)
    (root / "parcel" / NEW.revision / "bank.safetensors").write_bytes(b"")
    code, stdout, _ = run("check", "--store", root)
    assert code == 0, "the reference can be used"
    assert f"  {NEW.revision[:12]} (previous) damaged: its bank file" in stdout


def test_a_restore_of_the_previous_revision_keeps_the_current_one(run: Run, root: Path) -> None:
    with closing(FolderReferenceStore(root)) as store:
        store.save(OLD)
    assert run("restore", "parcel", "--revision", NEW.revision, "--store", root)[0] == 0
    with closing(FolderReferenceStore(root)) as store:
        assert content(store.load(ReferenceId("parcel"))) == content(NEW), "with its own time"
        assert content(store.load_previous(ReferenceId("parcel"))) == content(OLD)


def test_the_previous_revision_is_restored_if_the_current_one_is_damaged(run: Run, root: Path) -> None:
    with closing(FolderReferenceStore(root)) as store:
        store.save(OLD)
    (root / "parcel" / OLD.revision / "bank.safetensors").write_bytes(b"")
    code, stdout, _ = run("check", "--store", root)
    assert code == 1
    assert f"store restore --store {root} parcel\n" in stdout
    assert run("restore", "parcel", "--store", root)[0] == 0
    with closing(FolderReferenceStore(root)) as store:
        restored = store.load(ReferenceId("parcel"))
    assert (content(restored), restored.previous_revision) == (content(NEW), None)


def test_without_an_intact_generation_the_advice_is_to_load_again(run: Run, root: Path) -> None:
    for reference in (OLD, NEW):
        (root / "parcel" / reference.revision / "bank.safetensors").write_bytes(b"")
    code, stdout, _ = run("check", "--store", root)
    assert code == 1
    assert "No revision is intact: load the images again, or delete the reference." in stdout
    code, _, _ = run("restore", "parcel", "--store", root)
    assert str(code).endswith('Reference "parcel" has no intact revision. Load its images again, or delete it.')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], "no store is named: --store, PATCHSERVE_STORE"),
        (["check", "--store", "nowhere"], "there is no folder nowhere"),
        (["restore", "--store", "."], "required: ID"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_is_explained(run: Run, arguments: list[str], words: str) -> None:
    code, stdout, stderr = run(*arguments)
    assert (code, stdout) == (2, "")
    assert words in stderr


@pytest.mark.parametrize(
    ("name", "words"), [("nobody", "There is no reference"), ("../other", "A reference_id is"), ("", "A reference_id")]
)
def test_only_references_of_the_store_are_restored(run: Run, root: Path, name: str, words: str) -> None:
    code, _, _ = run("restore", name, "--store", root)
    assert str(code).startswith(f"patchserve-server store restore: {words}")


def test_a_folder_that_is_no_reference_is_not_listed_and_one_that_may_be_is(run: Run, root: Path) -> None:
    (root / "photos").mkdir()
    (root / "photos/one.jpg").write_bytes(b"x")
    (root / "other").rename(root / "oth er")
    code, stdout, _ = run("check", "--store", root)
    assert code == 1
    assert "photos" not in stdout
    assert "oth er: damaged: its folder's name is not the id of a reference" in stdout


def test_a_folder_without_references_is_said_to_be_one(run: Run, tmp_path: Path) -> None:
    code, stdout, _ = run("check", "--store", tmp_path)
    assert (code, stdout) == (0, f"There are no references in {tmp_path}. Is it the folder of `serve --store`?\n")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_folder_cannot_reach_the_terminal(run: Run, root: Path) -> None:
    (root / "parcel").rename(root / "a\x1b[31m\n\udcff")
    _, stdout, _ = run("check", "--store", root)
    assert stdout.splitlines()[0].startswith(r"a\x1b[31m\n\udcff: damaged: its folder's name")
    assert "\x1b" not in stdout
    assert "store restore" not in stdout, "no command works for such a name"


@pytest.mark.parametrize("name", ["current.json", f"{NEW.revision}/bank.safetensors"])
def test_nobody_is_told_to_delete_what_only_cannot_be_read(
    run: Run, root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable, os_open = root / "parcel" / name, os.open

    def refuse(path: Path, *arguments: int) -> int:
        if Path(path) == unreadable:
            raise PermissionError(errno.EACCES, "Permission denied")
        return os_open(path, *arguments)

    (root / "parcel" / OLD.revision).rename(root / "elsewhere")
    monkeypatch.setattr("os.open", refuse)
    code, report, _ = run("check", "--store", root)
    assert code == 1
    assert "cannot be read (Permission denied)" in report
    assert "It may be intact: make its files readable" in report
    assert "delete" not in report
    assert "Make its files readable" in str(run("restore", "parcel", "--store", root)[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize(("output", "words"), [("/dev/full", "No space left on device"), ("closed", "")])
def test_an_output_that_cannot_be_written_leaves_no_traceback(root: Path, output: str, words: str) -> None:
    command = [str(Path(sys.executable).parent / "patchserve-server"), "store", "check", "--store", str(root)]
    if output == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(output, os.O_WRONLY)
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.strip().removeprefix("patchserve-server: ") == words
