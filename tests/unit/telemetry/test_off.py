"""Without --metrics-port there is nothing of it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import patchserve_server.bootstrap.composition, patchserve_server.bootstrap.lifecycle
import patchserve_server.bootstrap.fleet.engine, patchserve_server.bootstrap.fleet.front
print([name for name in sys.modules if "prometheus" in name or "patchserve_server.telemetry" in name])
"""


def test_nothing_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
