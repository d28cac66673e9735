"""Who can reach the server, and whether that is allowed as it is."""

from __future__ import annotations

import logging

from patchserve_server.access.addresses import is_loopback
from patchserve_server.access.credentials import Credentials
from patchserve_server.domain.errors import StartupError

_log = logging.getLogger(__name__)


def check_exposure(host: str, credentials: Credentials, *, insecure: bool) -> None:
    """Checks the host of all ports; warns of what is allowed but open.

    Args:
        host: to listen on.
        credentials: of the server, and of its callers.
        insecure: allows no TLS although other machines can reach the host.

    Raises:
        StartupError: other machines can reach it without TLS, and `insecure` is not set.
    """
    if is_loopback(host):
        return
    identity, is_authenticated = credentials.identity, credentials.authenticator is not None
    if identity is None:
        if not insecure:
            message = (
                f"Other machines can reach {host}, and nothing is encrypted without TLS: give --tls-cert and "
                "--tls-key, listen on 127.0.0.1, or allow it with --insecure."
            )
            raise StartupError(message)
        data = "images, results and tokens" if is_authenticated else "images and results"
        _log.warning("--insecure: %s are sent unencrypted on %s", data, host)
    if not is_authenticated and (identity is None or identity.value.client_ca is None):
        _log.warning(
            "Anybody who can reach %s can load and delete references: set --auth-tokens, --jwt-issuer or "
            "--tls-client-ca to prevent it",
            host,
        )
