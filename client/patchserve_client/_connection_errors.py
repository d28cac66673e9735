"""Why a connection was not made, in a sentence. gRPC says it in the details of UNAVAILABLE."""

from __future__ import annotations

from typing import Final

from patchserve_client._connection import Connection

_NO_TLS: Final = "The server at {server} does not use TLS. Leave `tls` out, or give the server a certificate."
_EXPIRED: Final = "The certificate of the server at {server} has expired. Its operator must renew it."
_TOO_NEW: Final = "The certificate of the server at {server} is not valid yet. Compare the clocks of both machines."
_UNTRUSTED: Final = (
    "The certificate of the server at {server} is not from an authority that this client trusts. "
    "Set `TlsConfig.ca_file` to the certificate of the authority that signed it."
)
_WRONG_NAME: Final = (
    "The certificate of the server at {server} is for another name. "
    "Use an address that the certificate contains, or a certificate that contains this one."
)
# Parts of gRPC's texts, old and new. The first one that occurs applies.
_WITH_TLS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "certificate has expired": _EXPIRED,
    "certificate is not yet valid": _TOO_NEW,
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    "Hostname Verification": _WRONG_NAME,
    "not in peer certificate": _WRONG_NAME,
}
_CLOSED: Final = ("Socket closed", "onnection reset", "Broken pipe", "End of TCP stream")
_NO_HOST: Final = (
    "Domain name not found",
    "DNS resolution failed",
    "address lookup failed",
    "Name or service not known",
)
_OTHER_PROTOCOL: Final = {
    "http1.x server": "What answers at {server} speaks HTTP, not gRPC, for which patchserve has another port.",
    "Failed parsing HTTP/2": "What answers at {server} is not a gRPC server.",
    "Expected SETTINGS frame": "What answers at {server} is not a gRPC server.",
}
_CONNECTING: Final = "failed to connect to all addresses"


def sentence(details: str, connection: Connection) -> str:
    """What was wrong with the connection, and what to do about it. `details` is gRPC's text."""
    server = connection.server
    known = _OTHER_PROTOCOL if connection.tls is None else {**_WITH_TLS, **_OTHER_PROTOCOL}
    for part, text in known.items():
        if part in details:
            return text.format(server=server)
    if _contains(details, _NO_HOST):
        return f"The host in the server's address {server} was not found."
    if server.startswith("unix") and "No such file" in details:
        return f"No server answers at {server}: there is no such socket"
    # Without _CONNECTING, a connection that worked was lost.
    if _CONNECTING in details and _contains(details, _CLOSED):
        return _closed(connection)
    return f"No server answers at {server}: {details}"


def _closed(connection: Connection) -> str:
    text = f"The server at {connection.server} closes the connection before it answers."
    if connection.tls is None:
        return f"{text} It probably expects TLS: set `tls`."
    if connection.tls.cert_file is None:
        return f"{text} It probably requires a client certificate: set `TlsConfig.cert_file` and `TlsConfig.key_file`."
    return f"{text} It probably does not trust the client certificate, `TlsConfig.cert_file`."


def _contains(details: str, parts: tuple[str, ...]) -> bool:
    return any(part in details for part in parts)
