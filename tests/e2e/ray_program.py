"""Ray on this machine, in a process of its own: a cluster of two nodes, which obeys commands on standard input.

One line of JSON is one command, and its answer is one line. `ray_cluster.py` starts it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import ProxyLocation, gRPCOptions
from ray.serve.schema import LoggingConfig

from patchserve_server.ray.application import NAME, build_application
from patchserve_server.ray.arguments import given_settings
from patchserve_server.ray.replica import Replica

MEMORY = {"object_store_memory": 80 * 2**20, "num_cpus": 2}
REPLICA = b"ray::ServeReplica:"
Json = dict[str, Any]


class Nodes:
    """A head and a second node, each with a proxy of its own ports."""

    def __init__(self, folder: str, ports: Json) -> None:
        self._ports = ports
        self.cluster = Cluster(
            initialize_head=True, head_node_args={**MEMORY, "include_dashboard": False, "temp_dir": folder}
        )
        self.add()

    def add(self) -> None:
        ports = {"RAY_SERVE_WORKER_PROXY_GRPC_PORT": "second_grpc", "RAY_SERVE_WORKER_PROXY_HTTP_PORT": "second_http"}
        os.environ.update({variable: str(self._ports[port]) for variable, port in ports.items()})
        self.second = self.cluster.add_node(**MEMORY)  # type: ignore[arg-type] # its arguments have no types
        for variable in ports:
            del os.environ[variable]

    def kill(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)

    def replicas(self) -> list[tuple[int, str]]:
        """Process ids of the replicas, and on which node each is."""
        raylets = {
            node.all_processes["raylet"][0].process.pid: "head" if node is self.cluster.head_node else "second"
            for node in self.cluster.list_all_nodes()  # type: ignore[no-untyped-call]
        }
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if (process / "cmdline").read_bytes().startswith(REPLICA) and parent in raylets:
                    found.append((int(process.name), raylets[parent]))
            except OSError:
                continue
        return sorted(found)


def deploy(settings: Json, options: Json, *, is_fake: bool) -> None:
    replica: type[Replica] = Replica
    if is_fake:
        from e2e.ray_replica import FakeReplica  # noqa: PLC0415 - it is for this only

        replica = FakeReplica
    application = build_application(settings, replica)
    deployment = application._bound_deployment.options(**options)
    _, given = given_settings(settings)
    try:
        serve.run(deployment.bind(given), name=NAME)
    except RuntimeError as error:
        raise RuntimeError(str(serve.status())) from error


def open_ids() -> list[list[str]]:
    """The open references of each replica."""
    actors = [actor for actor in ray.util.list_named_actors(all_namespaces=True) if NAME in actor["name"]]
    handles = [ray.get_actor(actor["name"], actor["namespace"]) for actor in actors if "SERVE_REPLICA" in actor["name"]]
    stats: list[dict[str, list[str]]] = ray.get([handle.record_routing_stats.remote() for handle in handles])
    return [each["open"] for each in stats]


def obey(nodes: Nodes, command: Json) -> Any:
    match command.pop("do"):
        case "deploy":
            deploy(command["settings"], command["options"], is_fake=command["is_fake"])
        case "replicas":
            return nodes.replicas()
        case "kill replica":
            pid, _ = next(each for each in nodes.replicas() if each[1] == command["node"])
            os.kill(pid, signal.SIGKILL)
        case "kill node":
            nodes.kill()
        case "open ids":
            return open_ids()
    return None


def main() -> None:
    start = json.loads(sys.stdin.readline())
    nodes = Nodes(start["folder"], start["ports"])
    ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level=logging.WARNING)
    serve.start(
        proxy_location=ProxyLocation.EveryNode,
        http_options={"port": start["ports"]["http"]},
        grpc_options=gRPCOptions(
            port=start["ports"]["grpc"], grpc_servicer_functions=["patchserve_server.ray.proxy:add_services"]
        ),
        logging_config=LoggingConfig(enable_access_log=False),
    )
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints, too
    answers.write(json.dumps("started") + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(obey(nodes, json.loads(line))) + "\n")
    ray.shutdown()
    nodes.cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    main()
