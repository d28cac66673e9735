"""The settings of the application, from the arguments that Ray hands over, the variables and the TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from patchserve_server.config import ConfigurationError, Problem, Settings, read_configuration
from patchserve_server.domain.errors import StartupError

_FILE: Final = "config"
_OF_RAY: Final = ("host", "port")  # where the proxies listen is Ray's to say
_NOT_HERE: Final = {
    "tls_cert": "Ray's proxies have no TLS. Put Envoy in front of them",
    "tls_key": "Ray's proxies have no TLS. Put Envoy in front of them",
    "tls_client_ca": "Ray's proxies have no TLS. Put Envoy in front of them",
    "engine": "each replica has its own engine",
    "http_port": "Ray's proxies bring calls over gRPC only",
    "metrics_port": "several replicas may be on one node. Use --otel, and the metrics of Ray",
}


def given_settings(arguments: Mapping[str, object]) -> tuple[Settings, dict[str, Any]]:
    """All settings, and those of them that a replica gets: what is default there, it finds out for itself.

    Raises:
        ConfigurationError: a setting has a fault.
        StartupError: a setting has no meaning on Ray.
    """
    if unknown := sorted(set(arguments) - {_FILE, *Settings.model_fields}):
        raise ConfigurationError([Problem(f"There is no setting {name}.", name) for name in unknown])
    flags = {name: _text(value) for name, value in arguments.items() if name != _FILE}
    file = Path(str(arguments[_FILE])) if _FILE in arguments else None
    configuration = read_configuration(flags, file)
    settings = configuration.settings
    names = {name for name, origin in configuration.origins.items() if origin.kind != "default"}.difference(_OF_RAY)
    for name in _NOT_HERE.keys() & names:
        raise StartupError(f"{name} ({configuration.origins[name]}) cannot be used on Ray: {_NOT_HERE[name]}.")
    if settings.fronts != "1" or settings.device == "all" or "," in settings.device:
        raise StartupError(
            "A replica is one process with one device: give the deployment more replicas, and not fronts or devices."
        )
    if not settings.insecure:
        raise StartupError(
            "Ray's proxies listen on every address in plain text. Set insecure = true to allow it, and put Envoy in "
            "front of them for TLS."
        )
    return settings, settings.model_dump(include=names)


def _text(value: object) -> str | bool:
    return value if isinstance(value, bool) else str(value)
