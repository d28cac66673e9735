"""Encryption of a connection."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Encryption of a connection. All files are PEM.

    `ca_file` has the authorities that may sign the server's certificate; None: gRPC's default authorities. `cert_file`
    and `key_file` are the client's certificate, for a server that requires one (mTLS).
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`TlsConfig.cert_file` and `TlsConfig.key_file` belong together: give both or neither.")


def credentials(config: TlsConfig) -> grpc.ChannelCredentials:
    """The files as gRPC needs them.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged, or the key does not belong to the certificate.
    """
    paths = (config.ca_file, config.key_file, config.cert_file)
    ca, key, cert = (None if path is None else Path(path).read_bytes() for path in paths)
    _check(config)
    return grpc.ssl_channel_credentials(ca, key, cert)


def _check(config: TlsConfig) -> None:
    """Let Python's TLS read the files too: gRPC reports a damaged one only as a connection that fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if config.ca_file is not None:
            context.load_verify_locations(Path(config.ca_file))
    except ssl.SSLError as error:
        raise ValueError(f"`TlsConfig.ca_file` {config.ca_file} has no certificate in PEM form.") from error
    try:
        if config.cert_file is not None:
            cert, key = (Path(path) for path in (config.cert_file, config.key_file) if path is not None)
            context.load_cert_chain(cert, key, password="")  # instead of asking on the terminal
    except ssl.SSLError as error:
        message = (
            f"`TlsConfig.cert_file` {config.cert_file} and `TlsConfig.key_file` {config.key_file} are not a "
            "certificate and its own key in PEM form, without a password."
        )
        raise ValueError(message) from error
