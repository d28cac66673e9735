"""`patchserve stream FOLDER --watch`: each image once, when it is whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import png
from fakes.terminal import Run, command, rows

from patchserve_client import Frame
from patchserve_client.cli._arriving_file import ArrivingFile, Signature
from patchserve_client.cli._sources import SourceError, SourceOptions
from patchserve_client.cli._watching import WatchedFolder

pytest.importorskip("watchdog", reason="the extra `watch` is not installed")

PNG = png("green")
OLD_S = 1_000_000_000.0  # a time long ago


class Watch:
    """Takes frames of a watched folder in another thread."""

    def __init__(self, folder: Path) -> None:
        self.end = threading.Event()
        self.told: list[str] = []
        self.unreadable: list[str] = []
        self.error: Exception | None = None
        self._frames: list[Frame] = []
        self._changed = threading.Condition()
        options = SourceOptions(
            end=self.end, tell=lambda kind, _: self.told.append(kind), written_folders=(folder / "written",)
        )
        self._source = WatchedFolder(folder, options, lambda name, _: self.unreadable.append(name))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._source.frames():
                with self._changed:
                    self._frames.append(frame)
                    self._changed.notify_all()
        except SourceError as error:
            self.error = error

    def names(self, count: int) -> list[str]:
        """The names of the frames, when there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._frames) >= count, 30), self._frames
            return [frame.frame_id for frame in self._frames]

    @property
    def last_image(self) -> object:
        return self._frames[-1].image

    def ends(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[], Watch]]:
    watches: list[Watch] = []

    def start() -> Watch:
        watches.append(Watch(tmp_path))
        return watches[-1]

    yield start
    for one in watches:
        one.end.set()
        one.ends()


def test_images_that_are_there_come_first_then_new_ones(watch: Callable[[], Watch], tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("not an image")
    watched = watch()
    assert watched.names(2) == ["a.png", "b.png"]
    (tmp_path / ".hidden.png").write_bytes(PNG)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.png").write_bytes(PNG)
    assert watched.names(3)[-1] == "sub/c.png"
    (tmp_path / "d.part").write_bytes(PNG)
    (tmp_path / "d.part").rename(tmp_path / "d.png")
    assert watched.names(4)[-1] == "d.png"
    assert (watched.unreadable, watched.told) == ([], [])


def test_what_the_command_writes_below_the_folder_is_not_taken(watch: Callable[[], Watch], tmp_path: Path) -> None:
    (tmp_path / "written" / "deep").mkdir(parents=True)
    (tmp_path / "written" / "earlier.png").write_bytes(PNG)
    (tmp_path / "first.png").write_bytes(PNG)
    watching = watch()
    assert watching.names(1) == ["first.png"]
    (tmp_path / "written" / "deep" / "overlay.png").write_bytes(PNG)
    (tmp_path / "second.png").write_bytes(PNG)
    assert watching.names(2) == ["first.png", "second.png"]


def test_a_file_in_parts_is_taken_once_and_whole(watch: Callable[[], Watch], tmp_path: Path) -> None:
    watched = watch()
    with (tmp_path / "slow.png").open("wb") as file:
        file.write(PNG[:40])
        file.flush()
        (tmp_path / "quick.png").write_bytes(PNG)
        assert watched.names(1) == ["quick.png"]
        file.write(PNG[40:])
    (tmp_path / "last.png").write_bytes(PNG)
    assert sorted(watched.names(3)) == ["last.png", "quick.png", "slow.png"]


def test_a_file_that_its_writer_closes_and_opens_again_is_taken_whole(
    watch: Callable[[], Watch], tmp_path: Path
) -> None:
    watched = watch()
    (tmp_path / "a.png").write_bytes(PNG[:40])
    (tmp_path / "b.png").write_bytes(PNG)
    assert watched.names(1) == ["b.png"]
    with (tmp_path / "a.png").open("ab") as file:
        file.write(PNG[40:])
    assert watched.names(2) == ["b.png", "a.png"]
    assert watched.last_image == PNG


def test_a_file_that_is_replaced_is_taken_again(watch: Callable[[], Watch], tmp_path: Path) -> None:
    (tmp_path / "latest.png").write_bytes(PNG)
    watched = watch()
    watched.names(1)
    new = png("red", (40, 30))
    (tmp_path / "next.tmp").write_bytes(new)
    (tmp_path / "next.tmp").replace(tmp_path / "latest.png")
    assert watched.names(2) == ["latest.png", "latest.png"]
    assert watched.last_image == new


def test_a_file_that_never_becomes_an_image_is_sent_so_that_the_server_says_what_is_wrong(
    watch: Callable[[], Watch], tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(PNG[:40])
    os.utime(tmp_path / "cut.png", (OLD_S, OLD_S))  # nobody writes it any more
    watched = watch()
    assert watched.names(1) == ["cut.png"]
    assert watched.last_image == PNG[:40]


def test_a_file_that_is_gone_again_is_forgotten(watch: Callable[[], Watch], tmp_path: Path) -> None:
    watched = watch()
    (tmp_path / "a.png").write_bytes(PNG[:40])
    (tmp_path / "b.png").write_bytes(PNG)
    watched.names(1)
    (tmp_path / "a.png").unlink()
    (tmp_path / "c.png").write_bytes(PNG)
    assert watched.names(2) == ["b.png", "c.png"]


def test_a_file_that_cannot_be_read_is_told(watch: Callable[[], Watch], tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    (tmp_path / "b.png").write_bytes(PNG)
    watched = watch()
    assert watched.names(1) == ["b.png"]
    while not watched.unreadable:
        watched.end.wait(0.01)
    assert watched.unreadable == ["a.png"]


def test_a_folder_that_is_deleted_ends_the_stream(watch: Callable[[], Watch], tmp_path: Path) -> None:
    watched = watch()
    (tmp_path / "a.png").write_bytes(PNG)
    watched.names(1)
    shutil.rmtree(tmp_path)
    watched.ends()
    assert "cannot be read" in str(watched.error)


def test_without_the_systems_help_the_folder_is_looked_at_often(
    watch: Callable[[], Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.start", refuse)
    watched = watch()
    (tmp_path / "a.png").write_bytes(PNG)
    assert watched.names(1) == ["a.png"]
    assert watched.told == ["polling"]


def test_a_file_is_taken_once_however_often_the_folder_is_looked_at(
    watch: Callable[[], Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchserve_client.cli._watching._SCAN_INTERVAL_S", 0.0)
    monkeypatch.setattr("patchserve_client.cli._watching._LARGEST_SCAN_SHARE", 1000.0)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
        os.utime(tmp_path / name, (OLD_S, OLD_S))  # it could be taken again at once
    watched = watch()
    watched.names(2)
    for name in ("c.png", "d.png"):
        (tmp_path / name).write_bytes(PNG)
        watched.names(3)
    assert watched.names(4) == ["a.png", "b.png", "c.png", "d.png"]


def test_a_file_that_decodes_but_may_still_be_written_is_not_taken(tmp_path: Path) -> None:
    path, now_s = tmp_path / "a.png", time.time()
    path.write_bytes(PNG)  # as a copy that has its final size from the beginning
    file = ArrivingFile(path, lambda: now_s)
    assert file.whole_image() is None
    now_s += 0.4
    path.write_bytes(png("red", (9, 9)))
    assert file.whole_image() is None
    now_s += 0.4
    assert file.whole_image() is None
    now_s += 0.2
    assert file.whole_image() == png("red", (9, 9))
    closed = ArrivingFile(path, lambda: now_s)
    closed.changed(Signature.of(path.stat()), is_finished=True)
    assert closed.whole_image() == png("red", (9, 9))


def test_ctrl_c_ends_a_watch_with_its_summary(fake: FakeServer, folder: Path) -> None:
    arguments = command("stream", folder, "--watch", "--server", fake.address)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    (folder / "d.png").write_bytes(png("red"))
    lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert [line.split()[1] for line in lines] == ["frame", "a.png", "b.png", "c.png", "d.png"]
    assert "4 frames in" in stdout
    assert (process.returncode, stderr) == (0, "")


def test_limit_ends_a_watch(run: Run, folder: Path) -> None:
    code, stdout, _ = run("stream", folder, "--watch", "--limit", 2)
    assert code == 0
    assert [row[1] for row in rows(stdout)[1:3]] == ["a.png", "b.png"]


def test_watch_needs_a_folder(run: Run, folder: Path) -> None:
    code, _, stderr = run("stream", folder / "a.png", "--watch")
    assert code == 2
    assert "--watch needs a folder" in stderr


def test_without_watchdog_watch_says_what_to_install(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchdog", None)
    code, stdout, stderr = run("stream", folder, "--watch")
    assert (code, stdout) == (1, "")
    assert stderr == 'Error: --watch requires watchdog: `pip install ".[watch]"` in a checkout of patchserve.\n'
