"""The server's certificate and key, and the authorities that may sign client certificates."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from patchserve_server.access.reloading import Reloading
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError

READABLE_BY_ALL = 0o004

_log = logging.getLogger(__name__)


def reloading_identity(
    cert: Path, key: Path, client_ca: Path | None, *, prefix: str = "--tls", ca_flag: str = "--tls-client-ca"
) -> Reloading[TlsIdentity]:
    """The identity from these PEM files, which flags with this prefix name.

    Raises:
        StartupError: a file cannot be read, is not PEM of its kind, or the key belongs to another certificate.
    """
    cert_flag, key_flag = f"{prefix}-cert", f"{prefix}-key"
    files = {cert_flag: cert, key_flag: key}
    if client_ca is not None:
        files[ca_flag] = client_ca
    identity = Reloading(files, partial(_parse_identity, (cert_flag, key_flag, ca_flag)))
    if sys.platform != "win32" and key.stat().st_mode & READABLE_BY_ALL:
        _log.warning("%s %s: every user of this machine can read it; restrict it with chmod 600", key_flag, key)
    return identity


def _parse_identity(
    flags: tuple[str, str, str], chain: bytes, key: bytes, client_ca: bytes | None = None
) -> TlsIdentity:
    cert_flag, key_flag, ca_flag = flags
    certificate = parse_certificates(cert_flag, chain)[0]
    if client_ca is not None:
        parse_certificates(ca_flag, client_ca)
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except TypeError as error:
        raise StartupError(f"{key_flag}: the key is encrypted. Use a key without a passphrase.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StartupError(f"{key_flag}: the file has no private key in PEM form.") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != certificate.public_key().public_bytes(*form):
        message = (
            f"{key_flag} does not belong to the first certificate of {cert_flag}. Use the key of that certificate."
        )
        raise StartupError(message)
    expires = certificate.not_valid_after_utc
    if expires < datetime.now(UTC):
        _log.warning("%s: the certificate expired on %s; clients will reject it", cert_flag, expires)
    return TlsIdentity(chain, key, client_ca, expires)


def parse_certificates(flag: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise StartupError(f"{flag}: the file has no certificate in PEM form.") from error
