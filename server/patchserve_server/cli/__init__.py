"""The command `patchserve-server`."""

from __future__ import annotations

import os
import sys

PROGRAM = "patchserve-server"


def main() -> None:
    """Exit codes: 0 after a drain, 1 if something failed, 2 for wrong usage, 130 after a second signal."""
    _open_closed_streams()
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


def _open_closed_streams() -> None:
    """Whoever starts us may have closed a standard stream: then the next socket would get its number.

    What libraries in C write to standard error would go to whoever is connected to that socket.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above
