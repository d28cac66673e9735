"""The backbone: its weights, its device, its precision."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from patchserve_server.bootstrap.doctor.finding import Finding, Status, fault, ok, warning
from patchserve_server.bootstrap.folders import measurements_folder
from patchserve_server.bootstrap.processes.devices import devices_of
from patchserve_server.config import Settings, words_of
from patchserve_server.domain.errors import StartupError


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Whether the weights are here and intact."""
    from patchserve_server.engine.preflight import find_weights  # noqa: PLC0415 - imports torch

    try:
        found = find_weights(settings.backbone, _layers(settings), settings.weights)
    except StartupError as error:
        yield fault("weights", error.message, "Correct --backbone, --backbone-layers or --weights.")
        return
    if found.path is None and found.fallback:
        message = f"{found.backbone}: not on this machine. Without a network a start uses {found.fallback} instead"
        advice = "Set --backbone to the one that you want: references of one cannot be used by the other."
        yield warning("weights", message, advice)
    elif found.path is None:
        message = f"{found.backbone}: not on this machine. The first start downloads them"
        advice = "Without a network, copy the file and name it with --weights, or use --backbone efficientnet_lite2."
        yield warning("weights", message, advice)
    elif not found.is_intact:
        message = f"{found.backbone}: {found.path.name} is damaged (its SHA-256 begins with {found.sha256[:8]})"
        yield fault("weights", message, f"Remove {found.path}: the next start downloads it again.")
    else:
        yield ok("weights", f"{found.backbone}: {found.path.name}, SHA-256 {found.sha256[:12]}")


def check_device(settings: Settings) -> Iterator[Finding]:
    """Whether the device can be used."""
    from patchserve_server.engine.preflight import device_words  # noqa: PLC0415 - imports torch

    try:
        for device in devices_of(settings):
            yield ok("device", device_words(device))
    except StartupError as error:
        yield fault("device", error.message, "Set --device auto or cpu. docs/gpu.md says what a GPU needs.")


def check_precision(settings: Settings) -> Iterator[Finding]:
    """Whether the precision can be used, and what `auto` means here."""
    from patchserve_server.engine.measurements import Measurements  # noqa: PLC0415 - imports torch
    from patchserve_server.engine.preflight import find_precision  # noqa: PLC0415 - as above

    if any(finding.status is Status.FAULT for finding in check_device(settings)):
        return  # there is a line for it, and another precision would not help
    measurements = Measurements(measurements_folder(settings))
    try:
        found = find_precision(
            settings.precision,
            backbone=settings.backbone,
            layers=_layers(settings),
            device=devices_of(settings)[0],
            threads=settings.threads,
            measurements=measurements,
        )
    except StartupError as error:
        yield fault("precision", error.message, "Set --precision fp32 or auto.")
        return
    if settings.precision != "auto":
        yield ok("precision", found.precision)
        return
    times = ", ".join(f"{name} takes {time_ms:.1f} ms" for name, time_ms in found.times_ms.items())
    measured = f"auto: {found.precision}" + (f" ({times} for an image, measured here)" if times else "")
    message = measured if found.precision else "auto: not measured here yet; the first start measures"
    if settings.store is not None:
        advice = "Set --precision: references of one precision cannot be used in another, and auto may choose again."
        yield warning("precision", message, advice)
    else:
        yield ok("precision", message)


def check_decode(settings: Settings) -> Iterator[Finding]:
    """Whether the device can decode JPEGs, if it shall."""
    if settings.decode == "cpu" or any(finding.status is Status.FAULT for finding in check_device(settings)):
        return
    from patchserve_server.engine.backbone.devices import resolve_device  # noqa: PLC0415 - imports torch
    from patchserve_server.imaging.on_device import open_codec  # noqa: PLC0415 - as above

    try:
        for device in devices_of(settings):
            open_codec(resolve_device(device))
    except StartupError as error:
        yield fault("decode", error.message, "docs/gpu.md says what --decode device needs.")
    else:
        yield ok("decode", f"device: JPEGs by torchcodec {version('torchcodec')}")


def _layers(settings: Settings) -> tuple[int, ...]:
    return tuple(map(int, words_of(settings.backbone_layers)))
