"""Without --metrics-port and --otel there is nothing of them."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import patchserve_server.bootstrap.composition, patchserve_server.bootstrap.lifecycle
import patchserve_server.bootstrap.processes.engine, patchserve_server.bootstrap.processes.front
parts = ("prometheus", "opentelemetry", "telemetry.metrics", "telemetry.otel", "telemetry.span")
print([name for name in sys.modules if any(part in name for part in parts)])
"""


def test_nothing_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
