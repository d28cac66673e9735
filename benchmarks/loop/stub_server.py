"""The server with a detector without a network: `python -m loop.stub_server FLAGS` takes the flags of `serve`.

With LOOP_ASYNCIO in the environment, it does without uvloop. With LOOP_BLOCKS, it prints at its end which callbacks of
asyncio's own loop took the longest. With LOOP_NETWORK, it has the network of its flags and variables.
"""

from __future__ import annotations

import os
import sys

from loop.blocks import Blocks
from loop.stub_detector import StubDetector
from patchserve_server.bootstrap.process import configure_process


def main() -> None:
    if "LOOP_ASYNCIO" in os.environ:
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    configure_process()
    from patchserve_server.bootstrap import composition  # noqa: PLC0415 - configure_process comes first
    from patchserve_server.cli import main as run  # noqa: PLC0415

    if "LOOP_NETWORK" not in os.environ:
        composition.open_detector = lambda settings: StubDetector()  # noqa: ARG005 - its name is a part of the type
    sys.argv.insert(1, "serve")
    blocks = Blocks() if "LOOP_BLOCKS" in os.environ else None
    try:
        run()
    finally:
        if blocks is not None:
            print(f"LONGEST\n{blocks.report()}", flush=True)


if __name__ == "__main__":
    main()
