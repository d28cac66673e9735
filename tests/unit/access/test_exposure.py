"""Who can reach the server: refused without TLS, or said in the log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchserve_server.access import Credentials, check_exposure
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError

OPEN = "Anybody who can reach"


def credentials(*, tls: bool, client_ca: bool = False, tokens: bool = False) -> Credentials:
    identity = SimpleNamespace(value=TlsIdentity(b"", b"", b"ca" if client_ca else None)) if tls else None
    return Credentials(cast(Any, identity), cast(Any, object() if tokens else None), ())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "unix:/a"])
def test_on_this_machine_everything_is_allowed(host: str, caplog: pytest.LogCaptureFixture) -> None:
    check_exposure(host, credentials(tls=False), insecure=False)
    assert not caplog.text


def test_plain_text_for_others_is_refused_unless_it_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupError, match=r"192.0.2.1.*--insecure"):
        check_exposure("192.0.2.1", credentials(tls=False, tokens=True), insecure=False)
    check_exposure("192.0.2.1", credentials(tls=False, tokens=True), insecure=True)
    assert "images, results and tokens are sent unencrypted" in caplog.text
    assert OPEN not in caplog.text


@pytest.mark.parametrize(
    ("is_open", "client_ca", "tokens"), [(True, False, False), (False, True, False), (False, False, True)]
)
def test_a_server_that_lets_everybody_in_says_so(
    is_open: bool, client_ca: bool, tokens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    check_exposure("192.0.2.1", credentials(tls=True, client_ca=client_ca, tokens=tokens), insecure=False)
    assert (OPEN in caplog.text) == is_open
