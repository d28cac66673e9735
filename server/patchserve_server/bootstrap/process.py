"""Process-wide settings of the interpreter and of libraries."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from patchserve_server.telemetry.logs import set_levels

if TYPE_CHECKING:
    from patchserve_server.config import Settings

SWITCH_INTERVAL_S = 0.0005
_GRPC_LOGGER = "grpc._cython.cygrpc"
NICENESS = 10  # added to the niceness of the process


def configure_process() -> None:
    """Apply all process-wide settings. Call it before torch or OpenVINO is imported; it may be called again."""
    # torch's OpenMP reads this when it is loaded. With the default, its threads wait actively after each operation
    # and slow down the backbone, which runs on other threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # gRPC's core logs a line for each TLS handshake that fails, and anybody can make them fail as often as they like.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # OpenVINO and NNCF report every import and conversion over the network unless this import fails.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    # The longest time that a thread keeps the interpreter while the event loop waits for it. The default is ten times
    # as long and reduces the responses under overload by a tenth.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logging.getLogger(_GRPC_LOGGER).addFilter(_is_of_interest)
    # It warns of each form that it cannot parse; so does the answer to its caller, and our log counts them.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    from patchserve_server.imaging import configure_libraries  # noqa: PLC0415 - imports OpenCV

    configure_libraries()


def _is_of_interest(record: logging.LogRecord) -> bool:
    """False for the traceback that gRPC logs if a call ends on the caller's side while its status is being sent.

    gRPC leaves it out itself if it has noticed the end already; which comes first is chance. Callers decide how often
    this happens: with short deadlines, every hundredth call.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (type(error).__name__ == "ExecuteBatchError" and str(error).startswith('Failed "execute_batch"'))


def set_log_level(settings: Settings) -> None:
    """Log what the settings say, from now on."""
    set_levels(settings.log_level, settings.log_calls)


def freeze_heap() -> None:
    """Leave out everything that is in memory now when Python searches for reference cycles. For a server that is ready.

    Its libraries have half a million objects. With them, Python would search rarely and for a tenth of a second, in
    which the event loop stands still. Without them, it searches often and briefly. gRPC leaves a cycle for every call.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # so that Python counts what is left


def lower_thread_priority() -> None:
    """Give the event loop and gRPC priority over this thread and the threads that it starts. Linux only.

    Without it, quick responses such as rejections and health checks would wait for threads that compute.
    """
    if sys.platform == "linux":  # on other systems a single thread has no priority
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """The event loop of the server: uvloop's, which costs a call less, where there is one; else asyncio's own.

    With HTTPS, it is asyncio's: uvloop reads before the HTTP face can start TLS, and what the client sent is lost.
    """
    if settings.tls_cert is not None and settings.http_port is not None:
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - not for Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
