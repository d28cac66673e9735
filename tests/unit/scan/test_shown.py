"""What the command shows of a scan, and what it says where a package is missing."""

from __future__ import annotations

import itertools
import re
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from patchserve_command import _scan_progress
from patchserve_command._scan_progress import ScanProgress, duration
from patchserve_command.commands import app
from patchserve_server.scan.counts import Counts


def test_progress_has_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(1000.0, _scan_progress.LINE_EVERY_S)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with ScanProgress() as progress:
        assert progress.text_of_end == ""
        progress.listing(2000)
        progress.planned(10_000, Counts(intact=1000))
        progress.opening()
        for _ in range(30):
            progress.images_done(100)
        progress.part_done(Counts(anomalous=7, failed={"UNREADABLE_IMAGE": 2}))
        assert progress.text_of_end == ": 4,000 of 10,000 images are inspected"
    _, stderr = capsys.readouterr()
    lines = stderr.splitlines()
    assert lines[:3] == [
        "Listing: 2,000 images so far",
        "10,000 images, 1,000 of them inspected earlier",
        "Opening the engine",
    ]
    assert re.match(r"4,000 of 10,000 images, \d\.\d images/s, \d h", lines[-1])
    assert lines[-1].endswith(" left, 7 anomalous, 2 failed")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (95, "1 min 35 s"), (24_000, "6 h 40 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "belt.patchserve").write_bytes(b"")
    for name in [name for name in sys.modules if name.startswith("patchserve_server.scan.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = [
        str(tmp_path),
        "--reference-file",
        str(tmp_path / "belt.patchserve"),
        "--out",
        str(tmp_path / "results"),
    ]
    result = CliRunner().invoke(app, ["scan", *arguments])
    assert result.exit_code == 1
    assert "Scanning requires pyarrow: `pip install " in result.stderr
    assert not (tmp_path / "results").exists()
