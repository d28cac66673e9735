"""The command `patchserve`: connection options, exit codes, and output on a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import grpc
import pytest
from fakes.fake_server import NOT_SERVING, SERVICE, FakeServer
from fakes.faults import Fault
from fakes.terminal import Run, command, on_a_terminal, rows

from patchserve_client.cli import _connection

NO_SERVER = (
    "No server answers at localhost:1. "
    "Start one with `patchserve-server serve` or `make serve`, or choose another with --server."
)


@pytest.mark.parametrize("arguments", [["infer", "{}/a.png"], ["stream", "{}"], ["health"]])
def test_without_a_server_the_command_says_what_to_do(run: Run, folder: Path, arguments: list[str]) -> None:
    code, _, stderr = run(*[argument.format(folder) for argument in arguments], "--server", "localhost:1")
    assert (code, stderr) == (1, f"Error: {NO_SERVER}\n")


def test_an_option_after_the_command_wins_over_one_before_it_and_both_win_over_the_variable(
    run: Run, fake: FakeServer
) -> None:
    assert run("--server", "localhost:1", "info", "--server", fake.address)[0] == 0
    assert run("--server", fake.address, "info")[0] == 0
    assert run("--server", "localhost:1", "info")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infer", "{}/missing.png"], "missing.png"),
        (["infer", "{}/empty"], "There are no images in"),
        (["infer"], "FILE|DIR"),
        (["infer", "{}", "--heatmap-scale", "calibrated"], "--out"),
        (["infer", "{}", "--heatmap-scale", "hot", "--out", "o"], "calibrated"),
        (["infer", "{}", "--overlay-format", "jpeg"], "--out"),
        (["infer", "{}", "--overlay-max-side", "640"], "--out"),
        (["infer", "{}", "--overlay-format", "gif", "--out", "o"], "webp"),
        (["infer", "{}", "--overlay-max-side", "15", "--out", "o"], " 16"),
        (["stream", "{}", "--overlay-max-side", "640"], "--out DIR"),
        (["reference", "load", "{}/empty"], "There are no images in"),
        (["reference", "load", "{}", "--coreset-ratio", "0"], "above 0"),
        (["reference", "load", "{}", "--coreset-ratio", "0.5", "--coreset-max-patches", "9"], "exclude"),
        (["reference", "delete"], "ID"),
        (["stream", "{}/missing"], "missing. A source is a folder, a video file, the index of a camera, or the URL"),
        (["stream", "{}/*.png"], "Patterns are for `patchserve infer`."),
        (["stream", "{}/empty"], "There are no images in"),
        (["stream", "{}", "--annotated-video", "o.gif"], ".mp4"),
        (["info", "--server", "http://localhost:50051"], "HOST:PORT"),
        (["info", "--cert", "{}/a.png"], "--cert and --key belong together"),
        (["info", "--timeout", "0"], "timeout"),
        (["--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, folder: Path, arguments: list[str], says: str) -> None:
    (folder / "empty").mkdir()
    code, stdout, stderr = run(*[argument.format(folder) for argument in arguments])
    assert (code, stdout) == (2, "")
    assert says in stderr
    assert "Traceback" not in stderr


def test_the_version_is_printed_without_a_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "installed_version", lambda name: f"version of {name}")
    assert run("--version") == (0, "patchserve version of patchserve\n", "")


def test_help_lists_the_exit_codes(run: Run) -> None:
    for words in ([], ["infer"], ["stream"], ["health"]):
        code, stdout, _ = run(*words, "--help")
        assert code == 0
        assert "Exit codes: 0" in " ".join(stdout.split())


def test_info_shows_the_server_and_health_its_readiness(run: Run, fake: FakeServer) -> None:
    code, stdout, _ = run("info")
    assert code == 0
    assert ["version", "1.2.3"] in rows(stdout)
    assert ["max_in_flight", "64"] in rows(stdout)
    assert json.loads(run("info", "--output=json")[1])["limits"]["max_image_bytes"] == 2**25
    assert run("health") == (0, "alive: yes\nready: yes\n", "")
    asyncio.run(fake.health.set(SERVICE, NOT_SERVING))
    assert run("health") == (1, "alive: yes\nready: no\n", "")


def test_the_token_is_sent_and_never_shown(run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_TOKEN", "from-the-variable")
    run("info")
    run("info", "--token", "typed")
    assert [seen["authorization"] for seen in fake.metadata] == ["Bearer from-the-variable", "Bearer typed"]
    fake.fail("GetServerInfo", Fault(grpc.StatusCode.UNAUTHENTICATED, "No token.", "NO_TOKEN"))
    code, stdout, stderr = run("info")
    assert code == 1
    assert "PATCHSERVE_TOKEN" in stderr
    assert "from-the-variable" not in stdout + stderr + run("info", "--help")[1]


def test_the_token_can_come_from_a_file(
    run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("PATCHSERVE_TOKEN", "from-the-variable")
    (folder / "token").write_text("from-the-file\n")
    assert run("info", "--token-file", folder / "token")[0] == 0
    assert fake.metadata[-1]["authorization"] == "Bearer from-the-file"


@pytest.mark.parametrize("content", [b"\x89PNG\xff", b"one\ntwo", "t\u00f6ken".encode(), b"two words"])
def test_a_file_that_holds_no_token_is_named_and_its_content_is_not_shown(
    run: Run, folder: Path, content: bytes
) -> None:
    (folder / "token").write_bytes(content)
    code, stdout, stderr = run("info", "--token-file", folder / "token")
    assert (code, stdout) == (1, "")
    assert stderr == f"Error: {folder / 'token'}: This is not a file with one token and nothing else.\n"
    code, _, stderr = run("info", "--token", "two words")
    assert (code, "two words" in stderr) == (2, False)


def test_a_token_is_not_sent_unencrypted_to_another_machine(run: Run) -> None:
    code, stdout, stderr = run("info", "--server", "192.0.2.1:1", "--token", "s3cret")
    assert code == 2
    assert "--insecure-token" in stderr
    assert "s3cret" not in stdout + stderr
    assert run("info", "--server", "192.0.2.1:1", "--token", "s3cret", "--insecure-token", "--timeout", 0.1)[0] == 1


def test_a_terminal_shows_colors_and_a_progress_bar_and_a_pipe_shows_neither(fake: FakeServer, folder: Path) -> None:
    arguments = ["infer", folder, "--server", fake.address]
    shown = on_a_terminal(*arguments)
    assert "\x1b[31manomalous\x1b[0m" in shown
    assert "Inspecting" in shown
    assert "\x1b[31m" not in on_a_terminal(*arguments, NO_COLOR="1")
    piped = subprocess.run(command(*arguments), capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout
    assert "Inspecting" not in piped.stdout + piped.stderr
    assert all(line.isascii() for line in piped.stdout.replace(str(folder), "").splitlines())
