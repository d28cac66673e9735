"""Creates and runs the server. Importing this package imports neither torch nor gRPC."""

from __future__ import annotations

from collections.abc import Callable

from patchserve_server.bootstrap.fleet.count import count_fronts
from patchserve_server.config import Settings


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the server until a signal stops it: `lifecycle.serve`, imported when it is needed.

    Args:
        settings: all settings.
        announce: called with one line when the server is ready.

    Raises:
        StartupError: the server cannot start with these settings.
    """
    if (fronts := count_fronts(settings)) > 1:
        from patchserve_server.bootstrap.fleet.parent import serve_fleet  # noqa: PLC0415 - only if it is used

        await serve_fleet(settings, fronts, announce)
        return
    from patchserve_server.bootstrap import lifecycle  # noqa: PLC0415 - imports torch

    await lifecycle.serve(settings, announce)
