"""The command `patchserve-server`."""

from __future__ import annotations

import sys

PROGRAM = "patchserve-server"


def main() -> None:
    """Exit codes: 0 after a drain, 1 if something failed, 2 for wrong usage, 130 after a second signal."""
    try:
        from patchserve_server.cli.commands import run  # noqa: PLC0415 - needs packages that a client does not have

        run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("patchserve"):
            raise
        package = error.name.partition(".")[0]
        sys.exit(
            f"{PROGRAM}: only the client of patchserve is installed here ({package} is missing). Install the server "
            'with `pip install ".[server]"` in a checkout of patchserve.'
        )
