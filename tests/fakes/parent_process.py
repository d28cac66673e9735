"""`patchserve-server` whose child processes are those of child_process.py. Run as a program.

With one front, it is the engine itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.child_process import answer_within, open_slow_detector
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.processes import keeper
from patchserve_server.cli import main

if __name__ == "__main__":
    if bound := os.environ.get("FAKE_SILENCE_S"):
        answer_within(float(bound))
    composition.open_detector = open_slow_detector  # type: ignore[assignment] # its parameter has another name
    keeper.COMMAND = (sys.executable, str(Path(__file__).with_name("child_process.py")))
    main()
