"""Certificates, keys and tokens: whether a start accepts them, and until when they are valid."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from patchserve_server.access import check_exposure
from patchserve_server.access.validity import Validity, certificate_validities, token_validities
from patchserve_server.bootstrap.composition import read_credentials
from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok, warning
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.clock import is_synchronized

SOON: Final = timedelta(days=30)
_ADVICE: Final = "SECURITY.md says what protects a server, and from whom."


def check_credentials(settings: Settings) -> Iterator[Finding]:
    """Whether the files can be used, who can reach the server without them, and what ends soon."""
    with _collected_warnings() as warnings:
        try:
            check_exposure(settings.host, read_credentials(settings), insecure=settings.insecure)
        except StartupError as error:
            yield fault("credentials", error.message, _ADVICE)
            return
    yield ok("credentials", _words(settings))
    for message in warnings:
        if "expired" not in message:  # that is said below, of each certificate
            yield warning("credentials", message, _ADVICE)
    validities: list[Validity] = []
    for flag, path in (("--tls-cert", settings.tls_cert), ("--tls-client-ca", settings.tls_client_ca)):
        validities += [] if path is None else certificate_validities(flag, path)
    validities += [] if settings.auth_tokens is None else token_validities(settings.auth_tokens)
    for each in validities:
        yield _validity(each, datetime.now(UTC))


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """What would be logged at a start."""
    messages: list[str] = []
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("patchserve_server")
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


def _words(settings: Settings) -> str:
    encryption = "plain text" if settings.tls_cert is None else "TLS"
    means = {
        "tokens": settings.auth_tokens,
        "JWTs": settings.jwt_jwks,
        "client certificates": settings.tls_client_ca,
    }
    used = " and ".join(name for name, file in means.items() if file is not None)
    return f"{encryption}; callers need {used or 'nothing'}"


def _validity(each: Validity, now: datetime) -> Finding:
    what, subject = f"{each.flag}: {each.name}", "tokens" if each.flag == "--auth-tokens" else "certificates"
    if each.start > now:
        advice = "Correct the clock of this machine, or wait."
        return fault(subject, f"{what} is valid only from {each.start:%Y-%m-%d %H:%M} UTC on", advice)
    if each.end <= now:
        advice = "Replace it: the server reads the file again by itself."
        make = fault if subject == "certificates" else warning
        return make(subject, f"{what} expired on {each.end:%Y-%m-%d}", advice)
    if each.end - now < SOON:
        days = (each.end - now).days
        advice = "Replace it before: the server reads the file again by itself."
        return warning(subject, f"{what} ends in {days} days, on {each.end:%Y-%m-%d}", advice)
    return ok(subject, f"{what} never ends" if each.never_ends else f"{what} is valid until {each.end:%Y-%m-%d}")


def check_clock(settings: Settings, installed: Path) -> Iterator[Finding]:
    """Whether the clock is plausible: it decides whether certificates and tokens are valid.

    Args:
        settings: of the server.
        installed: a file that was written when the server was installed.
    """
    now, written = datetime.now(UTC), datetime.fromtimestamp(installed.stat().st_mtime, UTC)
    shown = f"{now:%Y-%m-%d %H:%M} UTC"
    advice = "Set the clock, and keep it right by NTP."
    if now < written:
        yield fault("clock", f"{shown}, which is before the server was installed ({written:%Y-%m-%d})", advice)
    elif is_synchronized() is False and settings.jwt_jwks is not None:
        yield warning("clock", f"{shown}, not synchronized; JWTs end by it", advice)
    else:
        yield ok("clock", shown)
