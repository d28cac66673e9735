"""What holds for the whole test process."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("patchserve_server"):  # the tests of the client also run where there is no server
    from patchserve_server.bootstrap.process import configure_process

    configure_process()  # before any test module imports torch
