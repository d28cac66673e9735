"""A new process, to see whether a library sends telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def assert_no_telemetry(code: str, home: Path) -> None:
    """Run code in a new process. Its home folder would get the id that OpenVINO's telemetry sends."""
    program = (
        "import sys; from patchserve_server.bootstrap.process import configure_process; configure_process()\n"
        f"{code}\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == "['openvino_telemetry']"  # the placeholder, and no module of the real package
    assert not (home / "intel").exists()
