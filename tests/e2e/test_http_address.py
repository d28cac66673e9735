"""Clients learn where the HTTP face of a server is."""

from __future__ import annotations

import dataclasses
import json

import pytest
from e2e.in_process import running_server
from typer.testing import CliRunner

from patchserve_client import Client, Unavailable
from patchserve_client.cli import app


def test_the_server_tells_clients_the_address_of_its_http_face() -> None:
    with running_server() as server, Client(server.address) as client:
        assert server.http_url.startswith("http://127.0.0.1:")
        assert client.server_info().http_url == server.http_url
        assert client.server_info().grpc_address == server.address.replace("localhost", "127.0.0.1")
        run = CliRunner().invoke(app, ["--server", server.address, "info", "--output=json"])
        assert json.loads(run.stdout)["http_url"] == server.http_url


def test_a_server_without_http_has_none() -> None:
    with running_server(http_port=None) as server, Client(server.address) as client:
        assert dataclasses.asdict(client.server_info())["http_url"] == ""


def test_a_client_at_the_port_for_http_is_told_so() -> None:
    told = pytest.raises(Unavailable, match=r"speaks HTTP, not gRPC, for which patchserve has another port\.$")
    with running_server() as server, Client(server.http_url.removeprefix("http://")) as client, told:
        client.server_info()
