"""Process-wide settings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from patchserve_server.bootstrap.process import configure_process, lower_thread_priority

HEAVY = ("torch", "openvino", "nncf", "grpc", "cv2")


def run_python(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_computing_threads_and_the_threads_that_they_start_run_after_the_event_loop() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def niceness_of_a_thread_started_here() -> int:
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(niceness).result()

    before = niceness()
    with ThreadPoolExecutor(1, initializer=lower_thread_priority) as pool:
        assert pool.submit(niceness).result() > before
        assert pool.submit(niceness_of_a_thread_started_here).result() > before
    assert niceness() == before


def test_openvino_cannot_import_its_telemetry_and_torch_threads_do_not_spin() -> None:
    code = (
        "import os, sys; from patchserve_server.bootstrap.process import configure_process; "
        "configure_process(); configure_process(); "
        "print(os.environ['OMP_WAIT_POLICY'], sys.modules['openvino_telemetry'], 'torch' in sys.modules)"
    )
    assert run_python(code).split() == ["PASSIVE", "None", "False"]


def test_the_operators_own_wait_policy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    configure_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_image_libraries_are_configured() -> None:
    code = (
        "from patchserve_server.bootstrap.process import configure_process; configure_process()\n"
        "import cv2; from PIL import Image; print(cv2.getNumThreads(), Image.MAX_IMAGE_PIXELS)"
    )
    assert run_python(code).split() == ["1", "None"]


@pytest.mark.parametrize("command", ["--help", "serve --help", "serve --port 70000", "token --help"])
def test_help_and_a_wrong_flag_do_not_wait_for_large_libraries(command: str) -> None:
    code = (
        "import sys; from patchserve_server.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_python(code, *command.split()).splitlines()[-1] == "LOADED []"
