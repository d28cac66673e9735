"""nginx with the configurations of docs/deployment, in front of servers on this machine."""

from __future__ import annotations

import contextlib
import getpass
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import requests
from e2e.harness import MESSAGE_OPTIONS
from fakes.certificates import Authority
from fakes.programs import free_port, program
from fakes.waiting import wait_until

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "deployment"
START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Proxy:
    """A running proxy with TLS."""

    address: str  # localhost:PORT
    ca_file: Path
    process: subprocess.Popen[bytes]
    log: Path

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        return grpc.secure_channel(self.address, credentials, MESSAGE_OPTIONS)

    def reload(self) -> None:
        """nginx: new workers take new calls, the old ones finish what they have."""
        self.process.send_signal(signal.SIGHUP)

    def workers(self) -> list[str]:
        """The process ids of the workers of nginx."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text().split()


@contextmanager
def nginx(folder: Path, *upstreams: str) -> Iterator[Proxy]:
    """docs/deployment/nginx.conf in front of these HOST:PORTs, at most two."""
    with _nginx(folder, "nginx.conf", "patchserve-{}:50051", upstreams, _wait_for_grpc) as proxy:
        yield proxy


@contextmanager
def nginx_http(folder: Path, *upstreams: str) -> Iterator[Proxy]:
    """docs/deployment/nginx-http.conf in front of these HOST:PORTs, at most two."""
    with _nginx(folder, "nginx-http.conf", "patchserve-{}:8080", upstreams, _wait_for_http) as proxy:
        yield proxy


@contextmanager
def _nginx(
    folder: Path, sample: str, upstream: str, upstreams: tuple[str, ...], wait: Callable[[Proxy], None]
) -> Iterator[Proxy]:
    def write(conf: str, port: int) -> list[str]:
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf = conf.replace("\nhttp {\n", f"\nhttp {{\n    access_log off; {temporary}\n")
        conf = conf.replace("listen 443 ", f"listen 127.0.0.1:{port} ").replace("/etc/nginx/tls", str(folder))
        (folder / "nginx.conf").write_text(conf)
        process = f"daemon off; user {getpass.getuser()}; pid {folder}/nginx.pid;"
        return [program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "log"), "-g", process]

    with _proxy(folder, sample, upstream, upstreams, write=write, wait=wait) as proxy:
        yield proxy


@contextmanager
def _proxy(
    folder: Path,
    sample: str,
    upstream: str,
    upstreams: tuple[str, ...],
    *,
    write: Callable[[str, int], list[str]],
    wait: Callable[[Proxy], None],
) -> Iterator[Proxy]:
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.certificate)
    cert, _ = authority.write(folder, "tls")
    cert.rename(folder / "tls.crt")
    conf = (SAMPLES / sample).read_text()
    form = re.sub(r"[0-9]+$", "{}", upstream.partition("{}")[2])
    for number, address in enumerate((upstreams * 2)[:2], 1):
        host, _, upstream_port = address.rpartition(":")
        there = upstream.partition("patchserve")[0] + host + form.format(upstream_port)
        conf = conf.replace(upstream.format(number), there)
    assert "patchserve-" not in conf
    port = free_port()
    process = subprocess.Popen(write(conf, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = Proxy(f"localhost:{port}", folder / "ca.pem", process, folder / "log")
    try:
        wait(proxy)
        yield proxy
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_grpc(proxy: Proxy) -> None:
    with proxy.channel() as channel:
        grpc.channel_ready_future(channel).result(START_TIMEOUT_S)


def _wait_for_http(proxy: Proxy) -> None:
    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"https://{proxy.address}/health", verify=str(proxy.ca_file), timeout=5).ok
        return False

    wait_until(answers, START_TIMEOUT_S)
