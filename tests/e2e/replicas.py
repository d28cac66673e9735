"""Any number of real servers with a FakeDetector, in processes of their own, behind one Envoy.

    python -m e2e.replicas --count 3 --store s3://bucket/fleet

with tests/ on the path starts them, and ends them when its standard input does.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
from e2e.envoys import Envoy, Policy, envoy
from e2e.harness import MESSAGE_OPTIONS, ServerProcess, Stub
from e2e.processes import PROGRAM
from fakes.certificates import Authority

DRAIN_FLAGS = ("--drain-delay-s", "1.5", "--drain-grace-s", "20")  # Envoy checks each half second


class Replica(ServerProcess):
    """One server, with a certificate for this machine.

    Args:
        number: of its folder.
        port: of gRPC; 0: a free one.
    """

    def __init__(
        self, folder: Path, number: int, port: int, flags: tuple[str, ...], variables: Mapping[str, str]
    ) -> None:
        self.number = number
        self.ca_file = folder / "servers-ca.pem"
        tls = ("--tls-cert", str(folder / "servers.pem"), "--tls-key", str(folder / "servers.key"))
        super().__init__("--port", str(port), *tls, *DRAIN_FLAGS, *flags, program=PROGRAM, variables=variables)

    @contextmanager
    def stub(self) -> Iterator[Stub]:
        """A stub that calls this server, not through Envoy."""
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        with grpc.secure_channel(self.address, credentials, MESSAGE_OPTIONS) as channel:
            yield Stub(channel)


class Replicas:
    """The servers behind an Envoy. `servers` has those that run, the oldest first."""

    def __init__(
        self, folder: Path, proxy: Envoy, store_url: str, flags: tuple[str, ...], variables: Mapping[str, str]
    ) -> None:
        self.envoy = proxy
        self.servers: list[Replica] = []
        self._folder = folder
        self._store_url = store_url
        self._flags = flags
        self._variables = variables
        self._started: list[Replica] = []

    @property
    def address(self) -> str:
        """Where clients call, with TLS."""
        return self.envoy.address

    @property
    def ca_file(self) -> Path:
        """The authority of Envoy's certificate."""
        return self.envoy.ca_file

    @contextmanager
    def stub(self) -> Iterator[Stub]:
        """A stub on a connection of its own to Envoy."""
        with self.envoy.channel() as channel:
            yield Stub(channel)

    def start(self, count: int) -> list[Replica]:
        """Start servers side by side; they are known to Envoy and get calls when this returns."""
        new = [self._new(0) for _ in range(count)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(ServerProcess.wait_ready, new))
        self._use([*self.servers, *new])
        return new

    def add(self) -> Replica:
        """Scale up by one."""
        (new,) = self.start(1)
        return new

    def remove(self, server: Replica) -> None:
        """Scale down by this one: it drains, and has to end with code 0."""
        self._use([each for each in self.servers if each is not server])
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log

    def kill(self, server: Replica) -> None:
        """End this one at once; Envoy is not told, and finds it out."""
        server.stop(signal.SIGKILL)

    def start_again(self, server: Replica) -> Replica:
        """In the place of one that was stopped or killed: with its address and its folder."""
        new = self._new(int(server.address.rpartition(":")[2]), server.number)
        new.wait_ready()
        self._use([new if each is server else each for each in self.servers])
        return new

    def roll(self) -> None:
        """A rolling update: for each server a new one starts, and gets calls, before the old one drains."""
        for old in list(self.servers):
            self.add()
            self.remove(old)

    def stop(self) -> None:
        """Drain all of them at once. Each has to end with code 0, unless it was killed."""
        for each in self.servers:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGTERM)
        ended = {each.number: each.wait() for each in self.servers}
        self.servers = []
        assert set(ended.values()) <= {0, -signal.SIGKILL}, ended

    def kill_all(self) -> None:
        """After a failure: end whatever was started."""
        for each in self._started:
            self.kill(each)

    def _new(self, port: int, number: int = 0) -> Replica:
        number = number or len(self._started) + 1
        flags = self._flags
        if self._store_url:
            flags = ("--store", self._store_url, "--store-cache", f"{self._folder}/cache-{number}", *flags)
        new = Replica(self._folder, number, port, flags, self._variables)
        self._started.append(new)
        return new

    def _use(self, servers: list[Replica]) -> None:
        self.servers = servers
        self.envoy.use(each.address for each in servers if each.process.poll() is None)


@contextmanager
def replicas(
    folder: Path,
    count: int = 3,
    *flags: str,
    store_url: str = "",
    policy: Policy = "least-request",
    score_s: float = 0.0,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Replicas]:
    """Servers that share a store, behind Envoy; TLS everywhere. All of them drain at the end.

    Args:
        folder: for certificates, caches and Envoy's files.
        flags: of `patchserve-server serve`.
        store_url: empty: each has references of its own.
        score_s: how long a batch takes.
        variables: such as the credentials of the store.
    """
    authority = Authority()
    (folder / "servers-ca.pem").write_bytes(authority.certificate)
    authority.write(folder, "servers")
    given = {"FAKE_SCORE_S": str(score_s), **(variables or {})}
    with envoy(folder, policy=policy, servers_ca=folder / "servers-ca.pem") as proxy:
        fleet = Replicas(folder, proxy, store_url, flags, given)
        try:
            fleet.start(count)
            yield fleet
            fleet.stop()
        except BaseException:
            fleet.kill_all()
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--store", default="", help="its credentials come from the environment")
    parser.add_argument("--policy", choices=("least-request", "by-reference"), default="least-request")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        replicas(Path(folder), arguments.count, store_url=arguments.store, policy=arguments.policy) as fleet,
    ):
        print(f"{fleet.address}, with the authority {fleet.ca_file}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
