"""The versions of Python and of libraries, and the extras."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok
from patchserve_server.config import Settings

_PACKAGE: Final = "patchserve"
_REQUIRED: Final = ("", "server")  # of a server in any case; empty: of the client
_OF_SERVERS: Final = ("gpu", "http", "int8", "metrics", "otel", "store", "timm")
_LISTED: Final = 5


def check_versions(_: Settings) -> Iterator[Finding]:
    """Whether Python and the libraries are those that the server was made for."""
    wanted = SpecifierSet(metadata(_PACKAGE)["Requires-Python"])
    python = platform.python_version()
    if python in wanted:
        yield ok("python", f"{python}, {platform.system()} {platform.machine()}")
    else:
        yield fault("python", f"{python}; the server needs {wanted}", "Install the server with another Python.")
    problems = [problem for extra in _REQUIRED for problem in _problems(extra)]
    if not problems:
        names = ("grpcio", "torch", "openvino", "numpy")
        yield ok("libraries", ", ".join(f"{name} {version(name)}" for name in names))
        return
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    advice = 'Install them again with `make setup`, or `pip install ".[server]"`, in a checkout of patchserve.'
    yield fault("libraries", "; ".join(problems[:_LISTED]) + more, advice)


def check_extras(settings: Settings) -> Iterator[Finding]:
    """Which optional parts are installed, and whether one is missing that the settings need."""
    names = sorted(set(metadata(_PACKAGE).get_all("Provides-Extra") or ()) & set(_OF_SERVERS))
    missing = {name for name in names if _problems(name)}
    needed = {
        "gpu": "--decode device" if settings.decode == "device" else "",
        "http": "--http-port" if settings.http_port is not None else "",
        "otel": "--otel" if settings.otel else "",
        "metrics": "--metrics-port" if settings.metrics_port is not None else "",
        "store": f"--store {settings.store}"
        if settings.store_url and not settings.store_url.startswith("memory:")
        else "",
        "int8": "--precision int8" if settings.precision == "int8" else "",
        "timm": f"--backbone {settings.backbone}" if settings.backbone.startswith(("timm:", "dinov")) else "",
    }
    for name in sorted(missing):
        if user := needed.get(name, ""):
            advice = f'Install it with `pip install ".[server,{name}]"` in a checkout of patchserve.'
            yield fault("extras", f"{user} needs the extra {name}: {'; '.join(_problems(name))}", advice)
    installed = ", ".join(name for name in names if name not in missing) or "none"
    others = ", ".join(sorted(missing - {name for name, user in needed.items() if user}))
    yield ok("extras", f"installed: {installed}" + (f"; not installed: {others}" if others else ""))


def _problems(extra: str) -> list[str]:
    """What is missing of an extra, or has another version than it needs."""
    found = []
    for line in requires(_PACKAGE) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if extra and (marker is None or "extra" not in str(marker)):
            continue
        if marker is not None and not marker.evaluate({"extra": extra}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            found.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found.append(f"{requirement.name} is {installed}, but must be {requirement.specifier}")
    return found
