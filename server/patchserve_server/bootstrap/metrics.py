"""The metrics of a process, and the port where they are scraped. Nothing of them is imported when they are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from patchserve_server.access import Credentials, check_exposure
from patchserve_server.access.addresses import is_unix_socket
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.process import lower_thread_priority
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.readings import Reading, Source
from patchserve_server.serving.observation import Observation

if TYPE_CHECKING:
    from patchserve_server.telemetry.metrics.adapter import Registry

_LOOPBACK = "127.0.0.1"


def open_metrics(live: LiveSettings, credentials: Credentials, observation: Observation, resources: ExitStack) -> str:
    """Counts what happens in this process, which is the whole server, and listens for scrapes.

    Returns:
        The URL; empty: there is no --metrics-port.

    Raises:
        StartupError: the extra is missing, or the port cannot be used.
    """
    settings = live.now
    if settings.metrics_port is None:
        return ""
    with _extra():
        from patchserve_server.telemetry.metrics.adapter import observe  # noqa: PLC0415 - an extra

    registry = observe(observation, "server", lambda: live.now.metrics_max_references)
    return _listen(settings, credentials, registry, resources)


def share_metrics(path: str, name: str, live: LiveSettings, observation: Observation, resources: ExitStack) -> None:
    """Counts what happens in this process, one of several, and hands it to the parent.

    Args:
        path: of the socket where the parent reads; empty: there are no metrics.
        name: of the process.
    """
    if not path:
        return
    from patchserve_server.telemetry.metrics.adapter import observe  # noqa: PLC0415 - an extra
    from patchserve_server.telemetry.metrics.snapshots import SnapshotServer  # noqa: PLC0415 - as above

    registry = observe(observation, name, lambda: live.now.metrics_max_references)
    resources.callback(SnapshotServer(Path(path), registry, lower_thread_priority).close)


def collect_metrics(
    settings: Settings,
    credentials: Credentials,
    paths: Sequence[Path],
    resources: ExitStack,
    max_references: Callable[[], int],
) -> str:
    """Listens for scrapes in the parent of several processes, which share their metrics at these paths.

    Args:
        settings: at the start.
        credentials: of the port.
        paths: of the sockets of the processes.
        resources: closes the port.
        max_references: how many references have series of their own; it may change.

    Returns:
        The URL.

    Raises:
        StartupError: the extra is missing, or the port cannot be used.
    """
    with _extra():
        from patchserve_server.telemetry.metrics.adapter import registry_of_processes  # noqa: PLC0415 - an extra

    return _listen(settings, credentials, registry_of_processes(paths, max_references), resources)


@contextmanager
def _extra() -> Iterator[None]:
    """Import what needs the extra inside.

    Raises:
        StartupError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise StartupError(
            f"--metrics-port needs the extra metrics ({error.name} is missing): install patchserve[metrics]."
        ) from None


def _listen(settings: Settings, credentials: Credentials, registry: Registry, resources: ExitStack) -> str:
    from patchserve_server.telemetry.metrics.endpoint import (  # noqa: PLC0415 - an extra
        MetricsEndpoint,
        MetricsListening,
    )

    host = settings.metrics_host or (_LOOPBACK if is_unix_socket(settings.host) else settings.host)
    if host != settings.host:
        check_exposure(host, credentials, insecure=settings.insecure)
    identity = credentials.identity
    listening = MetricsListening(
        host=host,
        port=settings.metrics_port or 0,
        identity=None if identity is None else lambda: identity.value,
        authenticator=credentials.authenticator,
        prepare_thread=lower_thread_priority,
    )
    endpoint = MetricsEndpoint(listening, registry)
    resources.callback(endpoint.close)
    return endpoint.open()


def build_readings(detector: DetectorInfo) -> Source:
    """Reads what runs here."""
    labels = (
        version("patchserve"),
        detector.backbone,
        detector.weights_digest[:12],
        detector.precision,
        detector.device,
        detector.search_product,
        detector.decode,
    )
    return lambda: [Reading("build_info", 1, labels)]
