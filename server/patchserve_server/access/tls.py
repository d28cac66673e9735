"""TLS for the ports of HTTP, with the same certificates as gRPC."""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError

_log = logging.getLogger(__name__)


class TlsContexts:
    """What a new connection needs for TLS. Connections keep what they started with.

    Args:
        identity: the current one. It changes when its files do.

    Raises:
        StartupError: the library of TLS does not accept it.
    """

    def __init__(self, identity: Callable[[], TlsIdentity]) -> None:
        self._identity = identity
        self._in_use = identity()
        self._context = _context(self._in_use)

    def current(self) -> ssl.SSLContext:
        """For the next connection."""
        latest = self._identity()
        if latest is not self._in_use:
            self._in_use = latest
            try:
                self._context = _context(latest)
            except StartupError as error:
                _log.error("%s New connections over HTTP use the previous one.", error.message)
        return self._context


def _context(identity: TlsIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with readable(identity.certificate_chain) as chain, readable(identity.key) as key:
            context.load_cert_chain(chain, key)
        if identity.client_ca is not None:
            context.load_verify_locations(cadata=identity.client_ca.decode("ascii", errors="ignore"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise StartupError(f"--tls-cert, --tls-key: TLS cannot use them ({error.reason}).") from error
    return context


@contextmanager
def readable(content: bytes) -> Iterator[str]:
    """A path where `ssl` can read this. On Linux it is in memory: the key is in no other file than the operator's."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("patchserve"), "wb", buffering=0) as file:
            file.write(content)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as folder:  # only its owner can read it; Windows opens no open file again
            path = Path(folder) / "pem"
            path.write_bytes(content)
            yield str(path)
