"""Files that are reloaded when they change."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from fakes.waiting import until

from patchserve_server.access import reloading as module
from patchserve_server.access.reloading import Reloader, Reloading
from patchserve_server.domain.errors import StartupError


def number(content: bytes) -> int:
    if content == b"deep":
        raise RecursionError
    try:
        return int(content)
    except ValueError as error:
        raise StartupError("--number: not a number.") from error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_a_bad_file_stops_the_start_and_later_leaves_the_previous_value_in_use(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloading = Reloading({"--number": file}, number)
    for bad in ("none", "deep"):
        file.write_text(bad)
        with pytest.raises(StartupError, match="--number"):
            Reloading({"--number": file}, number)
        for _ in range(3):
            reloading.reload()
        assert reloading.value == 1
    file.unlink()
    reloading.reload()
    problems = [record.getMessage() for record in caplog.records]
    assert len(problems) == 3, "each problem is logged once"
    assert all("The previous content stays in use." in problem for problem in problems)
    file.write_text("2")
    reloading.reload()
    assert reloading.value == 2


def test_files_are_parsed_again_only_if_their_bytes_changed(file: Path) -> None:
    parsed: list[bytes] = []
    reloading = Reloading({"--number": file}, parsed.append)
    for _ in range(3):
        file.write_text("1")
        reloading.reload()
    assert parsed == [b"1"]


def test_a_link_to_another_file_counts_as_a_change(file: Path, tmp_path: Path) -> None:
    """Kubernetes renews a mounted secret like this."""
    link = tmp_path / "link"
    link.symlink_to(file)
    reloading = Reloading({"--number": link}, number)
    (tmp_path / "renewed").write_text("2")
    (tmp_path / "new_link").symlink_to(tmp_path / "renewed")
    (tmp_path / "new_link").rename(link)
    reloading.reload()
    assert reloading.value == 2


async def test_a_bad_file_does_not_stop_other_files_from_being_reloaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    other = tmp_path / "other"
    await asyncio.to_thread(other.write_text, "1")
    reloaded = asyncio.Event()

    def parse_other(content: bytes) -> int:
        if content == b"2":
            reloaded.set()
        return number(content)

    both = [Reloading({"--number": file}, number), Reloading({"--other": other}, parse_other)]
    await asyncio.to_thread(file.write_text, "deep")
    await asyncio.to_thread(other.write_text, "2")
    task = asyncio.create_task(Reloader(both).run())
    async with asyncio.timeout(30):
        await reloaded.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_reloads_at_once_and_says_what_is_in_use(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 3600)
    caplog.set_level(logging.INFO)
    other = tmp_path / "other"
    await asyncio.to_thread(other.write_text, "1")
    good, bad = Reloading({"--number": file}, number), Reloading({"--other": other, "--key": file}, lambda *_: 1)
    reloader = Reloader([good, bad])
    task = asyncio.create_task(reloader.run())
    await asyncio.to_thread(other.unlink)
    reloader.request()
    await until(lambda: "Read the files again" in caplog.text)
    assert caplog.messages[-1] == (
        "Read the files again: --number: in use as they are now; --other, --key: cannot be used, the previous content "
        "stays."
    )
    task.cancel()


async def test_a_request_without_files_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reloader = Reloader([])
    task = asyncio.create_task(reloader.run())
    reloader.request()
    await until(lambda: "there is no file of tokens, keys or certificates" in caplog.text)
    task.cancel()
