"""nginx in front of the HTTP face, as docs/deployment configures it: origins, cookies and bodies are as without it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection

import pytest
import requests
from e2e import proxies
from e2e.in_process import running_server

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def token() -> tuple[str, str]:
    """A token and its line."""
    return new_token("person", list(Scope))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, token: tuple[str, str]) -> Iterator[proxies.Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "tokens").write_text(token[1])
    with (
        running_server(auth_tokens=folder / "tokens", max_message_mib=1) as server,
        proxies.nginx_http(folder, server.http_url.removeprefix("http://")) as running,
    ):
        yield running


def send(proxy: proxies.Proxy, method: str, path: str, **options: object) -> requests.Response:
    url = f"https://{proxy.address}{path}"
    return requests.request(method, url, verify=proxy.ca_file, timeout=TIMEOUT_S, **options)  # type: ignore[arg-type]


def test_the_cookie_stays_within_tls_and_the_page_is_known_by_its_origin(
    proxy: proxies.Proxy, token: tuple[str, str]
) -> None:
    own = {"origin": f"https://{proxy.address}"}
    answer = send(proxy, "POST", "/session", json={"token": token[0]}, headers=own)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"__Host-patchserve-{proxy.address.rpartition(':')[2]}={token[0]};")
    assert "secure" in cookie.lower()
    headers = own | {"cookie": cookie.partition(";")[0]}
    assert send(proxy, "GET", "/session", headers=headers).json()["name"] == "person"


def test_other_sites_are_refused_behind_a_proxy_too(proxy: proxies.Proxy) -> None:
    assert send(proxy, "POST", "/session", headers={"origin": "https://evil.example"}).status_code == 403


def test_a_body_reaches_the_limits_of_the_server_before_the_proxy_has_all_of_it(proxy: proxies.Proxy) -> None:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with closing(HTTPSConnection(proxy.address, timeout=TIMEOUT_S, context=context)) as connection:
        connection.putrequest("POST", "/session")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        connection.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")  # and the end never comes
        assert connection.getresponse().status == 413
