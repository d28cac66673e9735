"""The entry point of `patchserve`: what must be set before gRPC is imported, which importing the client does."""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130  # the shell's code for Ctrl-C


def main() -> None:
    """Run the command."""
    # gRPC's library logs failed handshakes on stderr; the command reports them itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from patchserve_command.commands import app  # noqa: PLC0415
    except KeyboardInterrupt:  # later ones are handled there
        sys.exit(_INTERRUPTED)
    app()
