"""Who hears what happens, beside the wall: the log and OpenTelemetry."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version

from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.event_fan_out import EventFanOut
from patchserve_server.telemetry.frame_lines import FrameLines


def open_listeners(settings: Settings, events: EventFanOut, resources: ExitStack, process: str = "") -> None:
    """Adds the listeners that the settings ask for. `process`: the name of this one, if the server has several.

    Raises:
        StartupError: a package is missing, or a variable OTEL_* cannot be used.
    """
    if settings.otel:
        try:
            from patchserve_server.telemetry.otel import OpenTelemetry  # noqa: PLC0415 - only if it is used: an extra
        except ModuleNotFoundError as error:
            raise StartupError(
                f"--otel needs the extra otel ({error.name} is missing): install patchserve[otel]."
            ) from None
        telemetry = OpenTelemetry(version("patchserve"), process)
        resources.callback(telemetry.close)
        for listener in telemetry.listeners:
            events.add(listener)
    if settings.log_frames:
        events.add(FrameLines(settings.log_frames))
