"""Files that are read again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from patchserve_server.access import reloading as module
from patchserve_server.access.reloading import Reloading, keep_fresh
from patchserve_server.domain.errors import StartupError


def number(content: bytes) -> int:
    if content == b"deep":
        raise RecursionError
    try:
        return int(content)
    except ValueError as error:
        raise StartupError("--number: no number.") from error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_what_cannot_be_used_is_refused_at_first_and_kept_out_later(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Reloading({"--number": file}, number)
    for bad in ("none", "deep"):
        file.write_text(bad)
        with pytest.raises(StartupError, match="--number"):
            Reloading({"--number": file}, number)
        for _ in range(3):
            watched.refresh()
        assert watched.value == 1
    file.unlink()
    watched.refresh()
    problems = [record.getMessage() for record in caplog.records]
    assert len(problems) == 3, "each is told once"
    assert all("What was read before stays in use." in problem for problem in problems)
    file.write_text("2")
    watched.refresh()
    assert watched.value == 2


def test_a_value_is_made_anew_only_of_something_new(file: Path) -> None:
    made: list[bytes] = []
    watched = Reloading({"--number": file}, made.append)
    for _ in range(3):
        file.write_text("1")
        watched.refresh()
    assert made == [b"1"]


def test_a_link_that_is_turned_to_another_file_counts(file: Path, tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret."""
    link = tmp_path / "link"
    link.symlink_to(file)
    watched = Reloading({"--number": link}, number)
    (tmp_path / "renewed").write_text("2")
    (tmp_path / "new_link").symlink_to(tmp_path / "renewed")
    (tmp_path / "new_link").rename(link)
    watched.refresh()
    assert watched.value == 2


async def test_one_bad_file_does_not_keep_others_from_being_renewed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    other = tmp_path / "other"
    await asyncio.to_thread(other.write_text, "1")
    renewed = asyncio.Event()

    def seen(content: bytes) -> int:
        if content == b"2":
            renewed.set()
        return number(content)

    watched = [Reloading({"--number": file}, number), Reloading({"--other": other}, seen)]
    await asyncio.to_thread(file.write_text, "deep")
    await asyncio.to_thread(other.write_text, "2")
    task = asyncio.create_task(keep_fresh(watched))
    async with asyncio.timeout(30):
        await renewed.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
