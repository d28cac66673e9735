"""The server as an application of Ray Serve. Importing this package imports nothing of the server: Ray's proxies do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve import Application


def app(arguments: Mapping[str, object]) -> Application:
    """Build the application: `serve run patchserve_server.ray:app store=s3://bucket/prefix`.

    Args:
        arguments: settings by name, as in the TOML file; `config` is the path of that file. Variables count, too.

    Raises:
        ConfigurationError: a setting has a fault.
        StartupError: a setting has no meaning on Ray.
    """
    from patchserve_server.ray.application import build_application  # noqa: PLC0415 - not for proxies

    return build_application(arguments)
