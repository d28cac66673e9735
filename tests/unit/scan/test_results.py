"""Where a scan writes: the same in a folder and in a bucket."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fakes.disk import failing

from patchserve_server.domain.errors import StartupError
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.results import Results, open_results


def test_files_are_written_read_listed_and_removed(results: Results, tmp_path: Path) -> None:
    assert results.read("scan.json") is None
    results.write("scan.json", b"old")
    results.write("scan.json", b"new")
    results.write("verdicts/part-0", b"rows")
    results.write("overlays/part-0/a.jpg", b"picture")
    (tmp_path / "local").write_bytes(b"reference")
    results.write_file("reference", tmp_path / "local")
    results.fetch("reference", tmp_path / "copy")
    assert results.read("scan.json") == b"new"
    assert (tmp_path / "copy").read_bytes() == b"reference"
    assert list(results.names("verdicts")) == ["verdicts/part-0"]
    assert list(results.names("overlays")) == ["overlays/part-0/a.jpg"]
    assert list(results.names("plan")) == []
    results.remove("scan.json")
    results.remove("scan.json")
    assert results.read("scan.json") is None


def test_a_file_that_is_missing_is_an_error(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=results.name):
        results.fetch("reference", tmp_path / "copy")


def test_a_folder_has_one_scan_at_a_time_and_nothing_unfinished(tmp_path: Path) -> None:
    with open_results(str(tmp_path)) as results:
        with pytest.raises(ScanError, match="Another scan writes to"), open_results(str(tmp_path)):
            pass
        results.write("summary.json", b"{}")
        (tmp_path / ".unfinished" / "killed").write_bytes(b"half of a file")
    with open_results(str(tmp_path)):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "summary.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_results(str(tmp_path)) as results:
        results.write("summary.json", b"old")
        with monkeypatch.context() as patch:
            failing(patch, "os.fsync", lambda: errno.ENOSPC)
            with pytest.raises(ScanError, match=r"cannot be written: No space left"):
                results.write("summary.json", b"new")
        assert results.read("summary.json") == b"old"
        assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ScanError, match="cannot be created or locked"), open_results(str(tmp_path / "file")):
        pass
    with pytest.raises(StartupError, match="cannot begin with ftp"), open_results("ftp://bucket/results"):
        pass
