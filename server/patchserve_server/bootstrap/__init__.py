"""Creates and runs the server. Importing this package imports neither torch nor gRPC."""

from __future__ import annotations

from collections.abc import Callable

from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.processes.count import check_engine_settings, check_settings, count_fronts
from patchserve_server.bootstrap.processes.devices import devices_of
from patchserve_server.config import Settings


async def serve(settings: Settings, announce: Callable[[str], None], read_again: Callable[[], Settings]) -> None:
    """Run the server until a signal stops it: `lifecycle.serve`, imported when it is needed.

    Args:
        settings: all settings.
        announce: called with one line when the server is ready.
        read_again: reads the settings again, for SIGHUP. Raises a ConfigurationError.

    Raises:
        StartupError: the server cannot start with these settings.
    """
    fronts = count_fronts(settings)
    if fronts > 1 or settings.engine is not None or len(devices_of(settings)) > 1:
        check_settings(settings)
        from patchserve_server.bootstrap.processes.parent import serve_processes  # noqa: PLC0415 - only if it is used

        await serve_processes(LiveSettings(settings), fronts, announce, read_again)
        return
    from patchserve_server.bootstrap import lifecycle  # noqa: PLC0415 - imports torch

    await lifecycle.serve(LiveSettings(settings), announce, read_again)


async def serve_engine(settings: Settings, announce: Callable[[str], None], read_again: Callable[[], Settings]) -> None:
    """Run an engine for fronts elsewhere until a signal stops it. The arguments are those of `serve`.

    Raises:
        StartupError: it cannot start with these settings.
    """
    check_engine_settings(settings)
    from patchserve_server.bootstrap.processes.parent import serve_processes  # noqa: PLC0415 - only if it is used

    await serve_processes(LiveSettings(settings), 0, announce, read_again)
