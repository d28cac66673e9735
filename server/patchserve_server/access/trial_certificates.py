"""Certificates for trying out TLS: an authority of their own, and a server's certificate that it signed."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from patchserve_server.domain.errors import StartupError

_CLOCK_TOLERANCE = timedelta(hours=1)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class TrialCertificates:
    """The files of a trial. The authority's key is kept nowhere, so nobody can sign further certificates."""

    ca: Path
    cert: Path
    key: Path


def host_name(text: str) -> x509.GeneralName:
    """The name or the IP address of a server, as its certificate has it.

    Raises:
        ValueError: clients cannot connect to it.
    """
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if _HOST_NAME.fullmatch(text) is None:
            raise ValueError(f"{text!r} is neither a host name nor an IP address") from None
        return x509.DNSName(text)
    if address.is_unspecified:
        raise ValueError(f"nobody connects to {address}; use the name or the address that clients use")
    return x509.IPAddress(address)


def create_trial_certificates(folder: Path, hosts: Sequence[x509.GeneralName], days: int) -> TrialCertificates:
    """Create the folder if it is missing, and write ca.pem, server.pem and server.key.

    Raises:
        StartupError: a file exists already, or cannot be written. Then none is left behind.
    """
    files = TrialCertificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ca, cert, key = _sign(hosts, days)
        for path, content, mode in ((files.ca, ca, 0o644), (files.cert, cert, 0o644), (files.key, key, 0o600)):
            with open(path, "xb", opener=partial(os.open, mode=mode)) as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink()
        if isinstance(error, FileExistsError):
            raise StartupError(f"{error.filename} exists already. Choose another folder with --out.") from error
        raise StartupError(f"--out {folder}: {error.strerror}. Name a folder that you can write to.") from error
    return files


def _sign(hosts: Sequence[x509.GeneralName], days: int) -> tuple[bytes, bytes, bytes]:
    """The certificates of the authority and of the server, and the server's key (PEM)."""
    now = datetime.now(UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "patchserve trial authority")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer_name=ca_name, subject_name=subject, public_key=public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_TOLERANCE)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
            .add_extension(_usage(is_ca=is_ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "patchserve trial server")])
    ca = builder(ca_name, ca_key.public_key(), is_ca=True).sign(ca_key, hashes.SHA256())
    server = (
        builder(server_name, key.public_key(), is_ca=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ca.public_bytes(Encoding.PEM), server.public_bytes(Encoding.PEM), key_pem


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
