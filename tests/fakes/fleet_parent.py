"""`patchserve-server` whose child processes are those of fleet_child.py. Run as a program."""

from __future__ import annotations

import sys
from pathlib import Path

from patchserve_server.bootstrap.fleet import keeper
from patchserve_server.cli import main

if __name__ == "__main__":
    keeper.COMMAND = (sys.executable, str(Path(__file__).with_name("fleet_child.py")))
    main()
