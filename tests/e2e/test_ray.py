"""The server on Ray: two nodes, replicas that share a store, Envoy in front of Ray's proxies."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from conformance.calls import Json, read_cases
from conformance.expectations import facts, unmet
from conformance.images import write_images
from conformance.languages import LANGUAGES, REPO
from conformance.test_conformance import CASES
from e2e.proxies import Proxy
from e2e.ray_cluster import TESTS, RayCluster, ray_cluster
from e2e.ray_envoy import envoy_for
from fakes.images import card, encoded
from fakes.object_servers import ObjectServer
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve_client import Client, PatchserveError, TlsConfig, Unavailable
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

pytest.importorskip("ray.serve")
pytestmark = [pytest.mark.serial, pytest.mark.timeout(300)]

BELT = "belt"
READY_S = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, moto: ObjectServer) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path_factory.mktemp("ray") / "log", **moto.environment) as running:
        yield running


def failures_of(suite: str, folder: Path, *flags: str, tokens: dict[str, str] | None = None) -> list[str]:
    """The cases of a suite that the Python client sees otherwise than expected, when it calls with these flags."""
    told = json.loads((CASES / f"{suite}.json").read_text())
    for case in told["cases"]:
        if tokens is not None:
            case["token"] = tokens[case["token"]]
    (folder / "images").mkdir()
    write_images(folder / "images")
    (folder / "cases.json").write_text(json.dumps(told).replace("@9000 letters", "a" * 9000))
    command = [*LANGUAGES[0].runner, "--cases", str(folder / "cases.json"), "--images", str(folder / "images"), *flags]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=REPO, check=False)
    lines: dict[str, Json] = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    cases = read_cases(CASES / f"{suite}.json")
    assert len(lines) == len(cases), done.stderr
    found = {case["name"]: unmet(case, facts(case, lines[case["name"]])) for case in cases}
    return [f"{name}: {faults}" for name, faults in found.items() if faults]


def test_every_case_of_the_clients_is_answered_as_without_ray(cluster: RayCluster, tmp_path: Path) -> None:
    cluster.deploy(is_fake=False, backbone="efficientnet_lite2", threads=1)
    assert failures_of("service", tmp_path, "--server", cluster.address) == []


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of tokens, and what is in it, by the names of the cases."""
    file, tokens, lines = tmp_path_factory.mktemp("tokens") / "tokens", {"none": ""}, []
    for name, scopes in {**{scope.value: [scope] for scope in Scope}, "both": list(Scope)}.items():
        tokens[name], line = new_token("robot", scopes)
        lines.append(line)
    tokens["wrong"], _ = new_token("robot", list(Scope))
    tokens["expired"] = tokens["wrong"]
    file.write_text("\n".join([*lines, ""]))
    return file, tokens


@pytest.fixture(scope="module")
def fleet(
    cluster: RayCluster,
    moto: ObjectServer,
    tokens: tuple[Path, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """Three replicas with a shared store, on two nodes, behind Envoy with TLS."""
    cluster.deploy(
        store=moto.url("ray"),
        store_cache=str(tmp_path_factory.mktemp("cache")),
        auth_tokens=str(tokens[0]),
        options={"num_replicas": 3, "ray_actor_options": {"num_cpus": 1}},
    )
    with envoy_for(cluster, tmp_path_factory.mktemp("envoy")) as proxy:
        yield proxy


def test_behind_envoy_calls_have_tls_and_need_their_tokens(
    fleet: Proxy, tokens: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    flags = ("--server", fleet.address, "--ca", str(fleet.ca_file))
    failed = failures_of("guarded", tmp_path, *flags, tokens=tokens[1])
    assert [line for line in failed if not line.startswith("expired_")] == []


def test_a_client_cannot_watch_the_health_of_a_replica_but_ask_for_it(fleet: Proxy) -> None:
    with fleet.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(request))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def client_of(fleet: Proxy, tokens: tuple[Path, dict[str, str]]) -> Client:
    return Client(fleet.address, tls=TlsConfig(ca_file=fleet.ca_file), token=tokens[1]["both"], timeout_s=30)


def test_calls_of_a_reference_go_to_a_replica_that_has_it(
    cluster: RayCluster, fleet: Proxy, tokens: tuple[Path, dict[str, str]]
) -> None:
    names = [f"reference-{number}" for number in range(6)]
    with client_of(fleet, tokens) as client:
        for name in names:
            client.load_reference([encoded(card(0))], name)
        for _ in range(4):
            for name in names:
                client.infer(encoded(card(0)), name)
    where = cluster.open_ids()
    assert [sum(name in ids for ids in where) for name in names] == [1] * len(names)
    assert len(where) == 3


@dataclass
class Load:
    """Callers, and streams that resume, until `stop`: what they were told."""

    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def infer(self, client: Client) -> None:
        """The client repeats a call three times. On a busy machine it takes longer until Ray has noticed."""
        ends_at_s = time.monotonic() + READY_S
        while True:
            try:
                client.infer(encoded(card(7)), BELT)
            except Unavailable as error:
                if error.retry_after_s is None or time.monotonic() > ends_at_s:
                    raise
                time.sleep(error.retry_after_s)
            else:
                return

    def call(self, client: Client) -> None:
        while not self.stop.is_set():
            try:
                self.infer(client)
                self.counts["calls"] += 1
            except PatchserveError as error:
                self.failures.append(f"Infer: {error!r}")

    def stream(self, client: Client) -> None:
        def frames() -> Iterator[bytes]:
            while not self.stop.wait(0.05):
                self.counts["frames"] += 1
                yield encoded(card(7))

        try:
            for result in client.infer_stream(frames(), BELT, resume_for_s=60):
                self.counts["results"] += 1
                if result.error is not None:
                    self.failures.append(f"frame: {result.error!r}")
        except PatchserveError as error:
            self.failures.append(f"InferStream: {error!r}")

    def grows(self, more: int = 50) -> None:
        """Waits for so many more answers of each kind."""
        calls, results = self.counts["calls"] + more, self.counts["results"] + more
        wait_until(lambda: self.counts["calls"] >= calls and self.counts["results"] >= results, READY_S)


def test_a_killed_replica_and_a_killed_node_fail_no_call(
    cluster: RayCluster, fleet: Proxy, tokens: tuple[Path, dict[str, str]]
) -> None:
    load = Load()
    with client_of(fleet, tokens) as client:
        client.load_reference([encoded(card(seed)) for seed in range(4)], BELT)
        threads = [threading.Thread(target=load.call, args=(client,)) for _ in range(6)]
        threads += [threading.Thread(target=load.stream, args=(client,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            load.grows()
            before = cluster.replicas()
            cluster.kill_replica("second" if any(node == "second" for _, node in before) else "head")
            load.grows()
            cluster.kill_second_node()
            load.grows()
            time.sleep(3)
        finally:
            load.stop.set()
            for thread in threads:
                thread.join(60)
    assert load.failures == []
    assert load.counts["results"] == load.counts["frames"]
