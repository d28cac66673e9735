"""Process-wide settings: everything that the server changes in the interpreter and in other libraries."""

from __future__ import annotations

import os
import sys
import threading

SWITCH_INTERVAL_S = 0.0005
NICENESS = 10  # added to the niceness of the process


def configure_process() -> None:
    """Set what holds for the whole process. Call it before torch or OpenVINO is imported; it may be called again."""
    # torch's OpenMP reads this when it is loaded. With the default, its threads spin for a while after each operation
    # and take the cores from the backbone, which runs on other threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # OpenVINO and NNCF report every import and conversion over the network unless this import fails.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    # The longest time that a computing thread keeps the interpreter while the event loop waits for it. The default is
    # ten times as long and costs a tenth of the responses under overload.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    from patchserve_server.imaging import configure_libraries  # noqa: PLC0415 - imports OpenCV

    configure_libraries()


def lower_thread_priority() -> None:
    """Let the event loop and gRPC run before this thread and the threads that it starts. Linux only.

    Rejections and health checks take a moment each; without this they would wait behind threads that compute.
    """
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
