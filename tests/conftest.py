"""For all tests: Ctrl-C reaches what they start, their folder marks them `fast`, and `serial` ones run alone."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

try:
    import fcntl
except ModuleNotFoundError:  # on Windows, where `serial` tests may be disturbed
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from fakes.object_servers import ObjectServer

    from patchserve_server.engine.detector import PatchCoreDetector

if find_spec("patchserve_server"):  # the tests of the client also run where there is no server
    from patchserve_server.bootstrap.process import configure_process

    configure_process()  # before any test module imports torch

settings.register_profile("without a deadline", settings(), deadline=None)  # a busy machine fails no example
settings.load_profile("without a deadline")

TESTS = Path(__file__).parent
FAST = ("unit", "contract", "hostile")
# They run a network, draw plots and sample images, follow progress bars, or search and decode for seconds.
NOT_FAST = (
    "unit/client/test_cli_evaluate.py",
    "unit/client/test_cli_load_progress.py",
    "unit/engine/backbone",
    "unit/engine/search/test_exact.py",
    "unit/project/test_samples.py",
    "hostile/test_hostile_images.py",
    "hostile/test_hostile_store.py",
)


def pytest_configure(config: pytest.Config) -> None:
    if missing := [name for name in NOT_FAST if not (TESTS / name).exists()]:
        raise pytest.UsageError(f"NOT_FAST in tests/conftest.py names what does not exist: {missing}")
    # A process that was started with SIGINT ignored, as by nohup, passes that on to its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _is_fast(item):
            item.add_marker("fast")
    if hasattr(config, "workerinput"):  # in a worker of pytest-xdist: the short files come last and fill the gaps
        items.sort(key=lambda item: item.get_closest_marker("fast") is not None)


def _is_fast(item: pytest.Item) -> bool:
    path = item.path.relative_to(TESTS)
    in_folders = path.parts[0] in FAST and not any(path.is_relative_to(folder) for folder in NOT_FAST)
    return in_folders and "detector" not in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the clock of pytest-timeout starts
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with _turn(alone=item.get_closest_marker("serial") is not None):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Waits until no test runs in another worker of pytest-xdist that is `serial`, or, if `alone`, until none runs."""
    if fcntl is None:
        yield
        return
    with Path(__file__).open("rb") as shared:
        fcntl.flock(shared, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(shared, fcntl.LOCK_UN)  # closing is not enough: a forked child may hold the file open


@pytest.fixture(scope="session")
def detector() -> PatchCoreDetector:
    """The embedded backbone, opened once for all tests of the process. It keeps nothing of what it is given."""
    from patchserve_server.engine.factory import create_detector  # noqa: PLC0415 - the client's tests have no torch

    return create_detector(backbone="efficientnet_lite2", device="cpu", threads=1)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """One moto for all tests of the process: each takes a prefix of its own."""
    from fakes.object_servers import moto_server  # noqa: PLC0415 - not for the client's tests

    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """One SeaweedFS for all tests of the process that do not kill it: each takes a prefix of its own."""
    from fakes.object_servers import seaweedfs_server  # noqa: PLC0415 - not for the client's tests

    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server
