"""OutputFolder: names that are safe, and limits that hold over restarts; other files are left alone."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.output_folder import FolderLimits, OutputFolder

DAY = timedelta(days=1)


def limits(count: int = 1000, nbytes: int = 10**9, age: timedelta = DAY) -> FolderLimits:
    return FolderLimits(count, age, nbytes)


def contents(nbytes: int = 30) -> dict[str, bytes]:
    third = bytes(nbytes // 3)
    return {".original.jpg": third, ".overlay.png": third, ".json": third}


def write(folder: OutputFolder, *labels: str, nbytes: int = 30) -> str:
    stem = folder.new_stem(labels)
    folder.write(stem, contents(nbytes))
    return stem


def stems(path: Path) -> list[str]:
    return sorted(file.name.removesuffix(".json") for file in path.glob("*.json"))


def test_a_folder_that_cannot_be_created_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"--save-outputs .*Not a directory"):
        OutputFolder(tmp_path / "file" / "folder", limits())


@pytest.mark.parametrize(
    ("label", "ends_with"),
    [
        ("000.jpg", "-000.jpg"),
        ("a/b/c.jpg", "-c.jpg"),
        ("C:\\belt\\c.jpg", "-c.jpg"),
        ("../../etc/passwd", "-passwd"),
        ("..", "-intact"),
        ("", "-intact"),
        ("Paket Ärmel 箱.png", "-Paket_Ärmel_箱.png"),
        ("a\nb\x1b[31m\0", "-a_b__31m"),
        ("\ud800x", "-x"),
        ("x" * 5000, "x" * 100),
        (".json", "-json"),
        ("a.original.jpg", "-a.original.jpg"),
    ],
)
def test_a_name_of_the_caller_becomes_a_safe_part_of_the_file_names(label: str, ends_with: str, tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, limits())
    stem = write(folder, "default", "intact", label)
    assert stem.endswith(ends_with)
    assert {path.name for path in tmp_path.iterdir()} == {stem + ending for ending in contents()}
    assert OutputFolder(tmp_path, limits()).count == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_name_is_written_in_the_folder_and_found_again(label: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        stem = write(OutputFolder(Path(name), limits()), "default", "anomalous", label)
        assert stems(Path(name)) == [stem]
        OutputFolder(Path(name), limits(nbytes=1))
        assert not list(Path(name).iterdir())


@pytest.mark.parametrize("bound", [limits(count=5), limits(nbytes=5 * 30)])
def test_the_oldest_inspections_are_removed_first_also_after_a_restart(bound: FolderLimits, tmp_path: Path) -> None:
    written = []
    for _ in range(4):  # a server and three restarts
        folder = OutputFolder(tmp_path, bound)
        written += [write(folder, "default", "intact") for _ in range(3)]
        assert stems(tmp_path) == written[-5:]
    assert len(list(tmp_path.iterdir())) == 15


def test_what_is_too_old_is_removed_at_the_start_and_by_prune(tmp_path: Path) -> None:
    for time in ("20200101T000000000000", "20200102T000000000000"):
        for ending in contents():
            (tmp_path / f"{time}-000001-default-intact{ending}").touch()
    folder = OutputFolder(tmp_path, limits(age=timedelta(days=36500)))
    assert folder.count == 2
    folder = OutputFolder(tmp_path, limits(age=DAY))
    assert not list(tmp_path.iterdir())
    write(folder, "default", "intact")
    folder.prune()
    assert folder.count == 1


def test_other_files_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    others = {"notes.txt", "20200101.json", "20200101T000000000000-000001-.json", "20200101T000000000000-000001-a.txt"}
    for name in others:
        (tmp_path / name).write_text("precious")
    (tmp_path / "20200101T000000000000-000001-folder.json").mkdir()
    folder = OutputFolder(tmp_path, limits(count=1, nbytes=1))
    assert folder.count == 0
    write(folder, "default", "intact")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "20200101T000000000000-000001-folder.json"}


def test_what_a_killed_server_left_unfinished_is_removed(tmp_path: Path) -> None:
    (tmp_path / "20200101T000000000000-000001-default-intact.original.jpg.part").touch()
    (tmp_path / "mine.part").touch()
    OutputFolder(tmp_path, limits())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]


def test_a_disk_that_is_full_leaves_no_part_of_an_inspection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path, limits())
    kept = write(folder, "default", "intact")
    real, calls = Path.write_bytes, []

    def write_bytes(path: Path, data: bytes) -> int:
        calls.append(path)
        if len(calls) == 3:
            real(path, data[:1])
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space"):
        write(folder, "default", "intact")
    assert stems(tmp_path) == [kept]
    assert len(list(tmp_path.iterdir())) == 3
    assert folder.count == 1
    write(folder, "default", "intact")
    assert folder.count == 2


def test_files_that_somebody_moved_away_do_no_harm(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, limits(count=2))
    write(folder, "default", "intact")
    for path in tmp_path.iterdir():
        path.unlink()
    for _ in range(3):
        write(folder, "default", "intact")
    assert len(stems(tmp_path)) == folder.count == 2


def test_files_that_cannot_be_removed_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = OutputFolder(tmp_path / "outputs", limits())
    (tmp_path / "outputs").rmdir()
    (tmp_path / "outputs").touch()
    for _ in range(20):
        with pytest.raises(NotADirectoryError):
            write(folder, "x")
    assert len(caplog.records) == 1
