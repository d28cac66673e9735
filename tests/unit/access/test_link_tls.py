"""What an engine elsewhere and its fronts refuse to start with."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.certificates import Authority

from patchserve_server.access import open_credentials
from patchserve_server.access.link_tls import check_engine_exposure, open_front_tls
from patchserve_server.domain.errors import StartupError

SOME = Path("x.pem")


@pytest.mark.parametrize(
    ("address", "insecure"),
    [("unix:/run/engine", False), ("localhost:1", False), ("[::1]:1", False), ("192.0.2.1:1", True)],
)
def test_a_way_that_nobody_else_can_listen_to_needs_no_tls(address: str, insecure: bool) -> None:
    assert open_front_tls(address, None, None, None, insecure=insecure) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((None, None, None), "The way to the engine at 192.0.2.1:1 is not protected"),
        ((SOME, None, SOME), "needs all of"),
    ],
)
def test_a_front_does_not_use_an_open_way(files: tuple[Path | None, Path | None, Path | None], expected: str) -> None:
    with pytest.raises(StartupError, match=expected):
        open_front_tls("192.0.2.1:1", *files, insecure=False)


@pytest.mark.parametrize("with_client_ca", [False, True])
def test_an_engine_with_a_certificate_needs_those_of_its_fronts(tmp_path: Path, with_client_ca: bool) -> None:
    authority, ca = Authority(), tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate)
    cert, key = authority.write(tmp_path, "engine")
    credentials = open_credentials(
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=ca if with_client_ca else None,
        auth_tokens=None,
        jwt_issuer=None,
        jwt_audience=None,
        jwt_jwks=None,
    )
    if with_client_ca:
        check_engine_exposure("0.0.0.0", credentials, insecure=False)
    else:
        with pytest.raises(StartupError, match="An engine needs --tls-client-ca, too"):
            check_engine_exposure("127.0.0.1", credentials, insecure=False)
