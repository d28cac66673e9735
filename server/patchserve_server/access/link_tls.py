"""TLS between fronts and an engine elsewhere: each side shows a certificate, and checks that of the other."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patchserve_server.access.addresses import is_loopback, is_unix_socket
from patchserve_server.access.credentials import Credentials
from patchserve_server.access.exposure import check_exposure
from patchserve_server.access.reloading import Reloading
from patchserve_server.access.tls import readable
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError


class LinkTls(ssl.SSLContext):
    """What new links begin with: the files as they are now. Links keep what they began with."""

    _current: Callable[[], ssl.SSLContext]

    @classmethod
    def of_engine(cls, identity: Reloading[TlsIdentity]) -> LinkTls:
        """For an engine that listens.

        Raises:
            StartupError: the library of TLS does not accept it.
        """
        return cls._made(ssl.PROTOCOL_TLS_SERVER, identity)

    @classmethod
    def of_front(cls, identity: Reloading[TlsIdentity]) -> LinkTls:
        """For a front that connects.

        Raises:
            StartupError: the library of TLS does not accept it.
        """
        return cls._made(ssl.PROTOCOL_TLS_CLIENT, identity)

    @classmethod
    def _made(cls, protocol: int, identity: Reloading[TlsIdentity]) -> LinkTls:
        made = cls(protocol)
        latest = (identity.value, _context(protocol, identity.value))

        def current() -> ssl.SSLContext:
            nonlocal latest
            if latest[0] is not identity.value:
                latest = (identity.value, _context(protocol, identity.value))
            return latest[1]

        made._current = current
        return made

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as in ssl
        """Begins TLS of one link. asyncio calls it for each."""
        return self._current().wrap_bio(*args, **options)


def open_front_tls(
    address: str, ca: Path | None, cert: Path | None, key: Path | None, *, insecure: bool
) -> Reloading[TlsIdentity] | None:
    """What a front needs to reach the engine at this address; None: plain text.

    Raises:
        StartupError: files are missing, or it is elsewhere and nothing protects the way.
    """
    if ca and cert and key:
        from patchserve_server.access.certificates import reloading_identity  # noqa: PLC0415 - imports cryptography

        return reloading_identity(cert, key, ca, prefix="--engine-tls", ca_flag="--engine-tls-ca")
    if ca or cert or key:
        raise StartupError("A link with TLS needs all of --engine-tls-ca, --engine-tls-cert and --engine-tls-key.")
    if not is_unix_socket(address) and not is_loopback(address.rpartition(":")[0]) and not insecure:
        raise StartupError(
            f"The way to the engine at {address} is not protected: give --engine-tls-ca, --engine-tls-cert and "
            "--engine-tls-key, or allow plain text with --insecure."
        )
    return None


def check_engine_exposure(host: str, credentials: Credentials, *, insecure: bool) -> None:
    """Checks where an engine listens for fronts: whoever is connected to it may do everything.

    Raises:
        StartupError: other machines can reach it, and nothing keeps them out.
    """
    identity = credentials.identity
    if identity is not None and identity.value.client_ca is None:
        raise StartupError("An engine needs --tls-client-ca, too: whoever is connected to it may do everything.")
    if identity is None:
        check_exposure(host, credentials, insecure=insecure)


def _context(protocol: int, identity: TlsIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with readable(identity.certificate_chain) as chain, readable(identity.key) as key:
            context.load_cert_chain(chain, key)
        context.load_verify_locations(cadata=(identity.client_ca or b"").decode("ascii", errors="ignore"))
    except ssl.SSLError as error:
        raise StartupError(f"TLS cannot use the files of a link ({error.reason}).") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context
