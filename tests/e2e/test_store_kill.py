"""A server that is killed during a save, a restore or a deletion leaves the state before or the state after.

Run as a program, this file is the one that gets killed: it forks a child for each command, so that Python starts once.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.disk import CLEANUP, STEPS, failing
from fakes.references import EPOCH, content, make_reference

from patchserve_server.domain.errors import ReferenceNotFoundError, RevisionNotKeptError, StorageFullError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import FolderReferenceStore

KILLS = 40
LONGEST_WAIT_S = 0.05
DELETE_EVERY = 5


def state_after(step: int) -> list[Reference]:
    """The current and the previous revision after `step` changes: three saves, a restore, a deletion, and so on."""
    match step % DELETE_EVERY:
        case 0:
            return []
        case 1:
            return [revision_at(step)]
        case 4:
            return [revision_at(step - 2), revision_at(step - 1)]
        case _:
            return [revision_at(step), revision_at(step - 1)]


def revision_at(step: int) -> Reference:
    """About 250 kB."""
    return make_reference(seed=step, patches=800, dim=64, size_px=64)


def say(*words: object) -> None:
    """Print a line with one system call, so that a kill cannot cut it (print may need several)."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


def change(store: FolderReferenceStore, step: int) -> None:
    match step % DELETE_EVERY:
        case 0:
            store.delete(ReferenceId("parcel"))
        case 4:
            store.restore(ReferenceId("parcel"), revision_at(step - 2).revision)
        case _:
            store.save(revision_at(step))


def change_until_killed(root: Path, step: int) -> None:
    store = FolderReferenceStore(root)
    while True:
        change(store, step)
        say("done", step)
        step += 1


def change_once_and_be_killed(root: Path, step: int, at: int) -> None:
    """Make one change and die before its step number `at` on the disk."""
    store = FolderReferenceStore(root)
    steps = iter(range(10_000))

    def die() -> None:
        if next(steps) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS + CLEANUP:
            failing(patch, name, die)
        change(store, step)


def change_with_little_room(root: Path, step: int) -> None:
    """The system refuses to write more than a part of the bank."""
    store = FolderReferenceStore(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        change(store, step)
    except StorageFullError as error:
        say("full", error)


class Victims:
    """Starts children that change a store, and kills them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def tell(self, *words: object) -> None:
        assert self._process.stdin
        print(*words, sep="\t", file=self._process.stdin, flush=True)

    def answer(self) -> str:
        """The next line."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the program that forks has ended"
        return line.rstrip("\n")

    def answers(self) -> list[str]:
        """The lines of the child, and at last how it ended."""
        lines = [self.answer()]
        while not lines[-1].startswith("ended"):
            lines.append(self.answer())
        return lines

    def close(self) -> None:
        self._process.communicate(timeout=30)


def no_waiting(_: object) -> None:
    """Instead of os.fsync: a killed process loses nothing that it wrote, and kills should hit the other steps."""


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_waiting)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    victims = Victims()
    yield victims
    victims.close()


def found(root: Path) -> list[tuple[object, ...]]:
    """What a new server finds. Its start shows that the lock of the killed process is gone."""
    references: list[Reference] = []
    with closing(FolderReferenceStore(root)) as store:
        with suppress(ReferenceNotFoundError, RevisionNotKeptError):
            references.append(store.load(ReferenceId("parcel")))
            references.append(store.load_previous(ReferenceId("parcel")))
        assert store.list_ids() == ["parcel"][: len(references)]
        assert len(list(root.glob("parcel/*/bank.safetensors"))) == len(references), "nothing else stays"
    for reference in references:
        step = round((reference.update_time - EPOCH).total_seconds())
        assert content(reference) == content(revision_at(step)), "a mix"
    return list(map(content, references))


def expected(step: int) -> list[tuple[object, ...]]:
    return list(map(content, state_after(step)))


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(victims: Victims, tmp_path: Path) -> None:
    moments = random.Random(2)
    step = 0  # nothing is there yet
    for _ in range(KILLS):
        victims.tell("until-killed", tmp_path, step + 1)
        assert victims.answer() == f"done {step + 1}"
        time.sleep(moments.uniform(0, LONGEST_WAIT_S))
        victims.tell("kill")
        *done, end = victims.answers()
        assert end == f"ended {-signal.SIGKILL}"
        step += 1 + len(done)
        state = found(tmp_path)
        if state == expected(step + 1):
            step += 1
        assert state == expected(step)


@pytest.mark.parametrize("step", range(1, 6), ids=["first save", "second save", "replace", "restore", "delete"])
def test_a_kill_before_any_step_leaves_the_old_or_the_new_state(victims: Victims, tmp_path: Path, step: int) -> None:
    outcomes = []
    for at in range(100):
        root = tmp_path / str(at)
        if step > 1:
            with closing(FolderReferenceStore(root)) as store:
                for before in range(1, step):
                    change(store, before)
        victims.tell("once", root, step, at)
        end = victims.answers()[-1]
        state = found(root)
        assert state in (expected(step - 1), expected(step))
        outcomes.append(state == expected(step))
        if end == "ended 0":
            break
    assert end == "ended 0"
    assert outcomes == sorted(outcomes), "once the change is there it stays"
    assert outcomes[0] is False
    assert outcomes[-1] is True


def test_a_full_disk_keeps_the_old_state(victims: Victims, tmp_path: Path) -> None:
    store = FolderReferenceStore(tmp_path)
    change(store, 1)
    store.close()
    before = set(tmp_path.rglob("*"))
    victims.tell("little-room", tmp_path, 2)
    said, end = victims.answers()
    assert said.startswith(f'full Not enough disk space to save reference "parcel" ({os.strerror(errno.EFBIG)})')
    assert end == "ended 0"
    assert found(tmp_path) == expected(1)
    assert set(tmp_path.rglob("*")) == before


def serve() -> None:
    """Read commands; fork a child for each, kill it on command, print how it ended."""
    pytest.MonkeyPatch().setattr(os, "fsync", no_waiting)
    actions: dict[str, Any] = {
        "until-killed": change_until_killed,
        "once": change_once_and_be_killed,
        "little-room": change_with_little_room,
    }
    for line in sys.stdin:
        command, root, *numbers = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            try:
                actions[command](Path(root), *map(int, numbers))
            except Exception as error:
                say("failed", repr(error))
                raise
            os._exit(0)
        if command == "until-killed":
            sys.stdin.readline()
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        say("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
