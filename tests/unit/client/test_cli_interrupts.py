"""Ctrl-C at any moment."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from unittest.mock import Mock, call

import pytest
import typer
from fakes.fake_server import FakeServer
from fakes.responses import png
from fakes.terminal import command

from patchserve_client import Client, NotFound, PatchserveError
from patchserve_client.cli._failures import exit_on_error
from patchserve_client.evaluation import loaded_reference


def test_ctrl_c_ends_a_stream_and_prints_its_summary(fake: FakeServer, folder: Path) -> None:
    arguments = command("stream", folder, "--server", fake.address, "--fps", 0.5)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    started = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert "a.png" in started[1]
    assert "1 frame in" in stdout
    assert (process.returncode, stderr) == (0, "")


def test_a_second_ctrl_c_does_not_wait_for_results(fake: FakeServer, folder: Path) -> None:
    fake.read_frames.clear()
    arguments = command("stream", folder, "--server", fake.address)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    fake.wait_for_request("InferStream")
    try:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        fake.read_frames.set()
    assert process.returncode == 130
    assert "0 frames in" in stdout
    assert stderr == "Interrupted.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("release un-acquired lock")])
def test_an_interrupt_inside_a_lock_of_grpc_is_reported_as_one(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    error.__context__ = KeyboardInterrupt()
    with pytest.raises(typer.Exit) as exited, exit_on_error():
        raise error
    assert exited.value.exit_code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_other_runtime_errors_are_not_interrupts() -> None:
    with pytest.raises(RuntimeError, match="a bug"), exit_on_error():
        raise RuntimeError("a bug")


def test_ctrl_c_ends_infer_at_once(fake: FakeServer, folder: Path) -> None:
    fake.delay_s = 120
    process = subprocess.Popen(
        command("infer", folder, "--server", fake.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    fake.wait_for_request("Infer", 3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("method", ["LoadReference", "DeleteReference"])
def test_ctrl_c_at_a_change_of_an_evaluation_leaves_no_reference(fake: FakeServer, tmp_path: Path, method: str) -> None:
    for name in ("train/good/0", "test/good/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png("green"))
    fake.hold(method)
    arguments = command("evaluate", tmp_path, "--server", fake.address)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    fake.wait_for_request(method)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "Interrupted.")
    assert len(fake.requests["DeleteReference"]) == (1 if method == "LoadReference" else 2)
    assert not fake.references


def test_an_interrupted_load_is_deleted_also_if_the_server_lists_no_loads() -> None:
    calls = Mock(spec=Client)
    calls.get_reference.side_effect = NotFound("no such reference")
    calls.load_reference.side_effect = KeyboardInterrupt
    calls.list_loads.side_effect = PatchserveError("not here")
    with pytest.raises(KeyboardInterrupt), loaded_reference(calls, [Path("a.png")], "belt"):
        raise AssertionError("nothing was loaded")
    calls.delete_reference.assert_called_once_with("belt")


def test_an_interrupted_load_has_ended_before_its_reference_is_deleted() -> None:
    calls = Mock(spec=Client)
    calls.get_reference.side_effect = NotFound("no such reference")
    calls.load_reference.side_effect = KeyboardInterrupt
    calls.list_loads.side_effect = [["a load"], ["a load"], []]
    with pytest.raises(KeyboardInterrupt), loaded_reference(calls, [Path("a.png")], "belt"):
        raise AssertionError("nothing was loaded")
    listed = call.list_loads("belt")
    assert calls.mock_calls[2:] == [listed, listed, listed, call.delete_reference("belt")]
