"""Measurements are made once for a processor, kept, and made again where the kept ones cannot be used."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread

import pytest
import torch

from patchserve_server.engine import measurements
from patchserve_server.engine.measurements import Measurements, shortest_times_ms
from patchserve_server.system.cache_folder import user_cache_folder


class FakeTimer:
    """Gives these times, and counts how often it is asked."""

    def __init__(self, **times_ms: float) -> None:
        self.times_ms = times_ms
        self.calls = 0

    def __call__(self, functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        self.calls += 1
        return {name: self.times_ms[name] for name in functions}


def nothing() -> None:
    pass


def calm() -> bool:
    return True


FUNCTIONS = {"a": nothing, "b": nothing}


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    timer = FakeTimer(a=1.0, b=2.0)
    assert Measurements(tmp_path, timer, calm).times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}
    assert Measurements(tmp_path, timer, calm).times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}
    assert timer.calls == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_another_name_other_functions_and_another_processor_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = FakeTimer(a=1.0, b=2.0)
    kept = Measurements(tmp_path, timer, calm)
    for name, functions in (("x", FUNCTIONS), ("y", FUNCTIONS), ("x", {"a": nothing})):
        assert kept.times_ms(name, functions).keys() == functions.keys()
    assert timer.calls == 3
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "another"})
    kept.times_ms("x", {"a": nothing})
    assert timer.calls == 4
    monkeypatch.setattr(measurements, "version", lambda _name: "99")
    kept.times_ms("x", {"a": nothing})
    assert timer.calls == 5


def test_a_server_without_openvino_keeps_its_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_openvino(name: str) -> str:
        if name == "openvino":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(measurements, "version", no_openvino)
    timer = FakeTimer(a=1.0, b=2.0)
    for _ in range(2):
        assert Measurements(tmp_path, timer, calm).times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}
    assert timer.calls == 1


@pytest.mark.parametrize("answers", [(False, True), (True, False), (False, False)])
def test_what_is_measured_beside_other_programs_is_not_kept(
    tmp_path: Path, answers: tuple[bool, bool], caplog: pytest.LogCaptureFixture
) -> None:
    before_and_after = iter(answers)
    timer = FakeTimer(a=1.0, b=2.0)
    busy = Measurements(tmp_path, timer, lambda: next(before_and_after))
    assert busy.times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}
    assert "measures x again" in caplog.text
    assert not list(tmp_path.iterdir())
    Measurements(tmp_path, timer, calm).times_ms("x", FUNCTIONS)
    assert Measurements(tmp_path, timer, calm).times_ms("x", FUNCTIONS)
    assert timer.calls == 2


def test_threads_that_get_half_a_core_are_not_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: real() / 2)
    assert not measurements.is_calm()


DAMAGED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b"null",
    b'{"times_ms": null}',
    b'{"times_ms": {"a": 1}}',
    b'{"times_ms": {"a": 1, "b": "x"}}',
    b'{"times_ms": {"a": 1, "b": null}}',
    b'{"times_ms": {"a": 1, "b": NaN}}',
    b'{"times_ms": {"a": 1, "b": 0}}',
    b'{"times_ms": {"a": 1, "b": -1e999}}',
    b'{"times_ms": {"a": 1, "b": 1' + b"0" * 400 + b"}}",
    b'{"times_ms": {"a": 1, "b": 1}, "name": "' + b"x" * 2**20 + b'"}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_measured_again_and_replaced(tmp_path: Path, content: bytes) -> None:
    timer = FakeTimer(a=1.0, b=2.0)
    kept = Measurements(tmp_path, timer, calm)
    kept.times_ms("x", FUNCTIONS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    for _ in range(2):
        assert kept.times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}
    assert timer.calls == 2
    assert json.loads(path.read_bytes())["times_ms"] == {"a": 1.0, "b": 2.0}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_start_does_not_wait_for_the_writer_of_a_pipe(tmp_path: Path) -> None:
    timer = FakeTimer(a=1.0, b=2.0)
    kept = Measurements(tmp_path, timer, calm)
    kept.times_ms("x", FUNCTIONS)
    (path,) = tmp_path.iterdir()
    path.unlink()
    os.mkfifo(path)
    start = Thread(target=kept.times_ms, args=("x", FUNCTIONS), daemon=True)
    start.start()
    start.join(timeout=30)
    assert not start.is_alive()
    assert timer.calls == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    """A file in the place of the folder: root may write to a folder that is read-only."""
    (tmp_path / "taken").touch()
    timer = FakeTimer(a=1.0, b=2.0)
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below", None):
        assert Measurements(folder, timer, calm).times_ms("x", FUNCTIONS) == {"a": 1.0, "b": 2.0}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert Measurements(tmp_path, FakeTimer(a=1.0, b=2.0), calm).times_ms("x", FUNCTIONS)
    assert not list(tmp_path.iterdir())


def test_servers_that_start_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    def start(number: int) -> Mapping[str, float]:
        return Measurements(tmp_path, FakeTimer(a=number, b=2.0), calm).times_ms("x", FUNCTIONS)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(1, 33)))
    assert all(times_ms.keys() == FUNCTIONS.keys() for times_ms in found)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_bytes())["times_ms"]["b"] == 2.0


def test_the_real_timer_runs_each_function_before_it_measures() -> None:
    runs: list[str] = []
    times_ms = shortest_times_ms({name: lambda name=name: runs.append(name) for name in "ab"})  # type: ignore[misc]
    assert times_ms.keys() == {"a", "b"}
    assert runs == ["a", "b"] * 4


def test_the_user_cache_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder("measurements") == tmp_path / "patchserve" / "measurements"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_folder("measurements") == Path.home() / ".cache" / "patchserve" / "measurements"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_folder("measurements") == Path.home() / ".cache" / "patchserve" / "measurements"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert user_cache_folder("measurements") is None


def test_kept_times_can_be_looked_up_without_measuring(tmp_path: Path) -> None:
    def never(_: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        raise AssertionError

    assert Measurements(None, never).kept_ms("a", ("x",)) is None
    assert Measurements(tmp_path, never).kept_ms("a", ("x",)) is None
    Measurements(tmp_path, lambda _: {"x": 2.0}, calm).times_ms("a", {"x": int})
    assert Measurements(tmp_path, never).kept_ms("a", ("x",)) == {"x": 2.0}
    assert Measurements(tmp_path, never).kept_ms("a", ("x", "y")) is None
