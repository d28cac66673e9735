"""Process-wide settings."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import aio
from grpc._cython import cygrpc

from patchserve_server.bootstrap.process import configure_process, lower_thread_priority, new_event_loop
from patchserve_server.config import Settings

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


def test_failed_handshakes_are_not_logged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    code = (
        "import os; from patchserve_server.bootstrap.process import configure_process; configure_process(); "
        "print(os.environ['GRPC_VERBOSITY'])"
    )
    assert run_python(code).split() == ["NONE"]


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


@pytest.mark.parametrize(
    ("message", "is_logged"),
    [('Failed "execute_batch": (an operation,)', False), ("Failed grpc_call_start_batch: 8", True)],
)
def test_grpc_logs_no_traceback_for_a_call_that_ended_while_its_status_was_sent(
    message: str, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    configure_process()
    log = logging.getLogger("grpc._cython.cygrpc")
    try:
        raise cygrpc.ExecuteBatchError(message)
    except aio.InternalError:
        log.exception("ExecuteBatchError raised in core by servicer method [Infer]")
    log.error("another error")
    assert len(caplog.records) == 1 + is_logged


def test_the_heap_of_a_ready_server_is_not_searched_for_cycles() -> None:
    code = (
        "import gc; from patchserve_server.bootstrap.process import freeze_heap\n"
        "import numpy; freeze_heap(); print(gc.get_freeze_count() > 10 * len(gc.get_objects()))"
    )
    assert run_python(code).split() == ["True"]


@pytest.mark.parametrize("command", ["--help", "serve --help", "serve --port 70000", "token --help"])
def test_help_and_a_wrong_flag_do_not_wait_for_large_libraries(command: str) -> None:
    code = (
        "import sys; from patchserve_server.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_python(code, *command.split()).splitlines()[-1] == "LOADED []"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_the_loop_is_uvloops() -> None:
    loop = new_event_loop(Settings())
    loop.close()
    assert type(loop).__module__ == "uvloop"


def test_with_https_the_loop_is_asyncios_own(tmp_path: Path) -> None:
    settings = Settings(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem", http_port=8080)
    loop = new_event_loop(settings)
    loop.close()
    assert type(loop).__module__.startswith("asyncio.")


def test_without_uvloop_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop(Settings())
    loop.close()
    assert type(loop).__module__.startswith("asyncio.")
