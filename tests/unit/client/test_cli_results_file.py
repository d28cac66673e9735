"""`--results FILE` of `infer` and `stream`."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.terminal import Run, command
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client import ResourceExhausted
from patchserve_client.cli._appended_lines import AppendedLines
from patchserve_client.cli._report import COLUMNS
from patchserve_client.cli._results_file import ResultsFile
from patchserve_client.cli._verdict_options import VerdictOptions


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Writes beyond this size fail, as on a full disk: after a part of the data was written."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_infer_appends_a_row_for_each_image(run: Run, folder: Path, tmp_path: Path) -> None:
    run("reference", "load", folder / "a.png")  # --threshold reads its threshold
    (folder / "bad.png").write_bytes(b"")
    results = tmp_path / "new" / "results.csv"
    assert run("infer", folder, "--results", results)[0] == 1
    assert run("infer", folder / "b.png", "--results", results, "--threshold", 1.5)[0] == 0
    rows = table(results)
    assert tuple(rows[0]) == COLUMNS
    assert [(Path(row["name"]).name, row["verdict"]) for row in rows] == [
        ("a.png", "intact"),
        ("b.png", "anomalous"),
        ("bad.png", "error"),
        ("c.png", "intact"),
        ("b.png", "anomalous"),
    ]
    assert (rows[1]["ratio"], rows[1]["regions"], rows[1]["raw_threshold"]) == ("3.000000", "1", "10.000000")
    assert (rows[2]["ratio"], rows[2]["error"]) == ("", "The bytes are not an image. (UNDECODABLE_IMAGE)")
    assert rows[4]["threshold"] == "1.5"


def test_stream_appends_an_object_for_each_frame(run: Run, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    for _ in range(2):
        code, stdout, _ = run("stream", folder, "--output=jsonl", "--results", results)
        assert code == 0
    written = [json.loads(line) for line in results.read_text().splitlines()]
    printed = [json.loads(line) for line in stdout.splitlines()][:3]
    assert [line["name"] for line in written] == ["a.png", "b.png", "c.png"] * 2
    for line, event in zip(written[3:], printed, strict=True):
        assert line.pop("time")
        assert line.pop("name") == event.pop("frame_id")
        assert event.pop("event") == "frame"
        assert line == event


def test_a_file_that_cannot_be_read_has_a_line_too(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("/proc/self/mem")
    for kind in ("infer", "stream"):
        assert run(kind, folder, "--results", tmp_path / f"{kind}.csv")[0] == 1
        (row,) = [row for row in table(tmp_path / f"{kind}.csv") if row["name"].endswith("b.png")]
        assert (row["verdict"], row["error"]) == ("error", "Input/output error")


def test_a_line_is_in_the_file_when_its_result_is_printed(fake: FakeServer, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    arguments = command("stream", folder, "--server", fake.address, "--fps", 0.02, "--results", results)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        process.stdout.readline()
        (row,) = table_after(results, 1)
        process.kill()
        process.wait()
    assert row["name"] == "a.png"


def table_after(path: Path, count: int) -> list[dict[str, str]]:
    """The rows, when there are so many. The line is written right after the row is printed."""
    while len(rows := table(path)) < count:
        pass
    return rows


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("results.txt", (2, ".csv or .jsonl")),
        ("results", (2, ".csv or .jsonl")),
        ("folder.csv", (2, "is a folder")),
        ("other.csv", (2, "has other columns")),
        ("notes.txt/results.csv", (1, "notes.txt")),
        ("/proc/self/results.csv", (1, "/proc/self/results.csv")),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_before_any_work(
    run: Run, fake: FakeServer, folder: Path, name: str, expected: tuple[int, str]
) -> None:
    code, says = expected
    (folder / "folder.csv").mkdir()
    (folder / "other.csv").write_text("a,b\n1,2\n")
    for arguments in (["infer", folder / "a.png"], ["stream", folder]):
        exit_code, stdout, stderr = run(*arguments, "--results", folder / name)
        assert (exit_code, stdout) == (code, "")
        assert says in stderr
    assert not fake.requests
    assert (folder / "other.csv").read_text() == "a,b\n1,2\n"


def test_a_disk_that_is_full_for_a_while_costs_no_line_and_leaves_no_half_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    with AppendedLines(path) as lines:
        lines.append(b"one")
        with file_size_limit(6):
            lines.append(b"two")
            assert path.read_bytes() == b"one\n"
            lines.append(b"three")
        lines.append(b"four")
        assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert lines.lost_count == 0
    assert capsys.readouterr().err == f"Warning: {path}: File too large. Its lines wait until there is room.\n"


def test_lines_that_could_never_be_written_are_an_error_at_the_end(tmp_path: Path) -> None:
    full = tmp_path / "results.jsonl"
    full.symlink_to("/dev/full")
    results = ResultsFile(full, VerdictOptions())
    for name in "abc":
        results.add(name, ResourceExhausted("No."))
    with pytest.raises(OSError, match="lacks 3 lines"):
        results.__exit__(None, None, None)


def test_a_full_disk_does_not_end_the_inspection(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").symlink_to("/dev/full")
    code, stdout, stderr = run("stream", folder, "--results", tmp_path / "results.jsonl")
    assert code == 1
    assert "3 frames in" in stdout
    assert stderr.count("No space left on device") == 1
    assert stderr.endswith("lacks 3 lines that could not be written.\n")


def test_a_line_that_an_earlier_run_left_unfinished_stays_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"name": "x"}\n{"na')
    assert run("infer", folder / "a.png", "--results", tmp_path / "results.jsonl")[0] == 0
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"name": "x"}', '{"na']
    assert json.loads(lines[2])["verdict"] == "intact"


@given(st.text(min_size=1))
def test_any_name_is_one_row_and_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("results") / "results.csv"
    with ResultsFile(path, VerdictOptions()) as results:
        results.add(name, ResourceExhausted('a,\n"b"'))
    (row,) = table(path)
    assert row["name"] == name
    assert row["error"] == 'a, "b" (RESOURCE_EXHAUSTED)'
