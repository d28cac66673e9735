"""`make demo` as a newcomer runs it: samples/demo.py in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from e2e.harness import ServerProcess
from PIL import Image

from patchserve_client import Client

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PARCELS = SAMPLES / "parcels"
NAMES = sorted(path.relative_to(PARCELS).as_posix() for path in PARCELS.glob("test/*/*.jpg"))


def run_demo(out: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PATCHSERVE_")} | variables
    command = [sys.executable, str(SAMPLES / "demo.py"), "--out", str(out), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=150, check=False)


def summary(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return loaded


@pytest.mark.timeout(400)
def test_it_runs_twice_without_a_network_and_with_the_usual_port_in_use(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    no_network = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # a server is there already, which serves as well
            taken.enter_context(socket.create_server(("127.0.0.1", 50051)))
        first = run_demo(out, TORCH_HOME=str(tmp_path / "no-weights-yet"), **no_network)
        (out / "overlays" / "of_an_earlier_run.png").touch()
        (out / "notes.txt").write_text("mine")
        second = run_demo(out, "--backbone", "efficientnet_lite2")

    for finished in (first, second):
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert finished.stderr == ""
        assert "\x1b" not in finished.stdout
        assert "12 of 12 verdicts are right" in finished.stdout
        assert finished.stdout.splitlines()[-1].endswith("opens its page: http://127.0.0.1:8080")
    assert re.search(r"Weights: .*efficientnet-lite2", first.stdout)
    assert "Fallback backbone: The weights of wide_resnet50_2" in first.stdout
    assert "Fallback backbone" not in second.stdout

    report = summary(out)
    assert report["server"]["backbone"] == "efficientnet_lite2"
    assert report["server"]["fallback_reason"] == ""
    assert report["reference"]["image_count"] == 8
    assert report["verdicts"] == {"right": 12, "missed": 0, "false_alarms": 0}
    assert sorted(entry["image"] for entry in report["images"]) == NAMES
    for entry in report["images"]:
        damaged = "/good/" not in entry["image"]
        assert entry["truth"] == ("damaged" if damaged else "intact")
        assert entry["anomaly"]["is_anomalous"] is damaged
        assert (entry["anomaly"]["score"] > 0.5) is damaged
        assert bool(entry["regions"]) is damaged

    overlays = sorted((out / "overlays").iterdir())
    assert [path.stem for path in overlays] == [name[len("test/") : -4].replace("/", "_") for name in NAMES]
    for path in overlays:
        with Image.open(path) as overlay:
            assert overlay.size == (640, 480)
    with Image.open(out / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 1500
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("default_reference")
def test_a_wrong_verdict_is_reported(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PARCELS / "train", tmp_path / "parcels" / "train")
    (tmp_path / "parcels" / "test" / "good").mkdir(parents=True)
    shutil.copy(PARCELS / "test" / "stain" / "000.jpg", tmp_path / "parcels" / "test" / "good" / "stained.jpg")
    monkeypatch.syspath_prepend(str(SAMPLES))
    demo = importlib.import_module("demo")
    monkeypatch.setattr(demo, "PARCELS", tmp_path / "parcels")
    monkeypatch.setattr(demo, "running_server", lambda *_: contextlib.nullcontext(server))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "out"), "--backbone", "efficientnet_lite2"])
    demo.main()
    assert "0 of 1 verdicts are right, 0 damaged parcels were missed, 1 intact parcels were reported as damaged" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert summary(tmp_path / "out")["verdicts"] == {"right": 0, "missed": 0, "false_alarms": 1}


def test_a_server_that_does_not_start_is_reported_with_its_message(tmp_path: Path) -> None:
    finished = run_demo(tmp_path, "--backbone", "no_such_backbone")
    assert finished.returncode == 1
    assert "The server did not start (exit code 1)" in finished.stderr
    assert "no_such_backbone" in finished.stderr
    assert "wide_resnet50_2" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "summary.json").exists()


def test_with_open_the_page_stays_until_ctrl_c(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, str(SAMPLES / "demo.py"), "--out", str(tmp_path / "out")]
    command += ["--backbone", "efficientnet_lite2", "--open"]
    environment = os.environ | {"BROWSER": f"{browser} %s"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            assert demo.stdout is not None
            lines = [line.rstrip() for line in iter(demo.stdout.readline, "Ctrl-C stops the server.\n")]
            url = next(line.split()[2] for line in lines if line.startswith("The page: "))
            assert opened.read_text() == f"{url}\n"
            assert requests.get(f"{url}/health", timeout=60).status_code == 200
            address = next(line.split()[2] for line in lines if line.startswith("Other programs: "))
            with Client(address) as client:
                assert client.get_reference().image_count == 8
            demo.send_signal(signal.SIGINT)
            assert demo.stdout.read().strip() == "The server stopped with exit code 0."
            assert demo.wait(60) == 0
        finally:
            demo.kill()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/health", timeout=60)
