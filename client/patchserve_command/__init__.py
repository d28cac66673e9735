"""The entry point of `patchserve`: what must be set before gRPC is imported, which importing the client does."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command."""
    # gRPC's library logs failed handshakes on stderr; the command reports them itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from patchserve_client.cli import main as run  # noqa: PLC0415

    run()
