"""Envoy with a configuration of deploy/envoy, in front of servers of this machine that come and go."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import yaml
from e2e.proxies import Proxy
from fakes.certificates import Authority
from fakes.programs import free_port, program
from fakes.waiting import wait_until

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "deploy" / "envoy"
START_TIMEOUT_S = 30

Policy = Literal["least-request", "by-reference"]


@dataclass(frozen=True)
class Host:
    """What Envoy knows of a server."""

    is_healthy: bool
    calls: int  # tries of calls that it was given so far


@dataclass(frozen=True)
class Envoy(Proxy):
    """A running Envoy."""

    folder: Path

    def use(self, addresses: Iterable[str]) -> None:
        """Tell Envoy of its servers (HOST:PORT), and wait until each of them gets calls."""
        addresses = list(addresses)
        _write_endpoints(self.folder, addresses)
        wait_until(lambda: all(each in self.hosts() and self.hosts()[each].is_healthy for each in addresses))

    def hosts(self) -> dict[str, Host]:
        """Every server that Envoy knows, by HOST:PORT."""
        (cluster,) = self._admin("clusters?format=json")["cluster_statuses"]
        return {_address(each): _host(each) for each in cluster.get("host_statuses", [])}

    @property
    def admin_port(self) -> int:
        """The port of its administration."""
        return int((self.folder / "admin").read_text().rpartition(":")[2])

    def _admin(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/{path}", timeout=10) as response:
            return json.load(response)


@contextmanager
def envoy(
    folder: Path, *addresses: str, policy: Policy = "least-request", servers_ca: Path | None = None
) -> Iterator[Envoy]:
    """Envoy with deploy/envoy/POLICY.yaml, in front of these HOST:PORTs, when one of them gets calls.

    Args:
        folder: for its files.
        servers_ca: the authority of the servers' certificates, which name localhost; None: they speak plain text.
    """
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.certificate)
    authority.write(folder, "envoy")
    port = free_port()
    _write_endpoints(folder, addresses)
    (folder / "envoy.yaml").write_text(yaml.safe_dump(_configuration(folder, policy, port, servers_ca)))
    command = [program("envoy"), "-c", f"{folder}/envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1"]
    command += ["--log-path", f"{folder}/log", "--admin-address-path", f"{folder}/admin"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running = Envoy(f"localhost:{port}", folder / "ca.pem", process, folder / "log", folder)
    try:
        _wait_for(running)
        wait_until(lambda: not addresses or any(host.is_healthy for host in running.hosts().values()))
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _configuration(folder: Path, policy: Policy, port: int, servers_ca: Path | None) -> dict[str, Any]:
    """The file of deploy/envoy with the ports and paths of this machine."""
    text = (CONFIGURATIONS / f"{policy}.yaml").read_text()
    for path, here in {
        "/etc/envoy/tls/tls.crt": folder / "envoy.pem",
        "/etc/envoy/tls/tls.key": folder / "envoy.key",
        "/etc/envoy/servers/ca.crt": servers_ca or "",
        "/etc/envoy/endpoints.yaml": folder / "endpoints.yaml",
    }.items():
        assert path in text
        text = text.replace(path, str(here))
    configuration: dict[str, Any] = yaml.safe_load(text)
    configuration["admin"]["address"]["socket_address"]["port_value"] = 0
    (listener,) = configuration["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = configuration["static_resources"]["clusters"]
    if servers_ca is None:
        del cluster["transport_socket"]
    else:
        tls = cluster["transport_socket"]["typed_config"]
        (name,) = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
        tls["sni"] = name["matcher"]["exact"] = "localhost"
    return configuration


def _write_endpoints(folder: Path, addresses: Iterable[str]) -> None:
    """The file of servers, renamed to its name as Envoy wants it."""
    content = yaml.safe_load((CONFIGURATIONS / "endpoints.yaml").read_text())
    (resource,) = content["resources"]
    (group,) = resource["endpoints"]
    group["lb_endpoints"] = [{"endpoint": {"address": {"socket_address": _socket_address(each)}}} for each in addresses]
    new = folder / "endpoints.yaml.new"
    new.write_text(yaml.safe_dump(content))
    new.rename(folder / "endpoints.yaml")


def _socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"address": host.replace("localhost", "127.0.0.1"), "port_value": int(port)}


def _address(status: dict[str, Any]) -> str:
    socket_address = status["address"]["socket_address"]
    return f"{socket_address['address']}:{socket_address['port_value']}"


def _host(status: dict[str, Any]) -> Host:
    failed = [name for name in status["health_status"] if name.startswith(("failed", "pending"))]
    calls = {each["name"]: int(each.get("value", 0)) for each in status["stats"]}["rq_total"]
    return Host(not failed, calls)


def _wait_for(running: Envoy) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        assert running.process.poll() is None, running.log.read_text()
        try:
            with running.channel() as channel:
                grpc.channel_ready_future(channel).result(1)
                return
        except grpc.FutureTimeoutError:
            assert time.monotonic() < deadline_s, running.log.read_text()
