"""Envoy with deploy/ray/envoy.yaml in front of two nodes of Ray on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from e2e.proxies import START_TIMEOUT_S, Proxy
from e2e.ray_cluster import RayCluster
from fakes.certificates import Authority
from fakes.programs import free_port, program

FILE = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "envoy.yaml"


@contextmanager
def envoy_for(cluster: RayCluster, folder: Path) -> Iterator[Proxy]:
    """Start it with a certificate of its own for localhost, in an empty folder."""
    authority, port = Authority(), free_port()
    (folder / "ca.pem").write_bytes(authority.certificate)
    certificate, key = authority.write(folder, "tls")
    conf = FILE.read_text().replace("0.0.0.0, port_value: 443", f"127.0.0.1, port_value: {port}")
    conf = conf.replace("/etc/envoy/tls/tls.crt", str(certificate)).replace("/etc/envoy/tls/tls.key", str(key))
    conf = conf.replace("port_value: 9901", "port_value: 0")
    for number, name in ((1, ""), (2, "second_")):
        address = f"socket_address: {{ address: ray-node-{number}, port_value: 9000 }}"
        check = "health_check_config: { port_value: 8000 }"
        before, after = conf.split(address)
        here = f"socket_address: {{ address: 127.0.0.1, port_value: {cluster.ports[name + 'grpc']} }}"
        conf = before + here + after.replace(check, check.replace("8000", str(cluster.ports[name + "http"])), 1)
    (folder / "envoy.yaml").write_text(conf)
    command = [program("envoy"), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1"]
    process = subprocess.Popen(
        [*command, "--log-path", str(folder / "log")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    proxy = Proxy(f"localhost:{port}", folder / "ca.pem", process, folder / "log")
    try:
        with proxy.channel() as channel:
            grpc.channel_ready_future(channel).result(START_TIMEOUT_S)
        yield proxy
    finally:
        process.terminate()
        process.wait(30)
