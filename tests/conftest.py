"""What holds for the whole test process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from patchserve_server.engine.detector import PatchCoreDetector

if find_spec("patchserve_server"):  # the tests of the client also run where there is no server
    from patchserve_server.bootstrap.process import configure_process

    configure_process()  # before any test module imports torch


@pytest.fixture(scope="session")
def detector() -> PatchCoreDetector:
    """The embedded backbone, opened once for all tests of the process."""
    from patchserve_server.engine.factory import create_detector  # noqa: PLC0415 - the client's tests have no torch

    return create_detector(backbone="efficientnet_lite2", device="cpu", threads=1)
