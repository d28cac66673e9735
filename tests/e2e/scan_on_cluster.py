"""A scan on a Ray cluster of two nodes, which loses a worker or a node meanwhile.

A program, because Ray leaves much in its process: scan_on_cluster.py worker|node RESULTS ARGUMENTS.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fakes import scan_process
from ray.cluster_utils import Cluster

from patchserve_command.commands import app
from patchserve_server.bootstrap import composition
from patchserve_server.scan import plan

PARTS_BEFORE_LOSS = 3
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
HEAD = {
    "include_dashboard": False,
    "_system_config": {"health_check_period_ms": 500, "health_check_initial_delay_ms": 0},
}


def main(lost: str, results: Path, arguments: list[str]) -> None:
    pids = results.with_name("pids")
    pids.mkdir()
    os.environ[scan_process.PIDS] = str(pids)
    composition.open_detector = scan_process.open_slow_detector
    plan._SMALLEST_PART = scan_process.IMAGES_PER_PART  # type: ignore[misc]
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, **HEAD})
    second = cluster.add_node(**NODE)

    def lose() -> None:
        while len(list(results.glob("verdicts/*.parquet"))) < PARTS_BEFORE_LOSS:
            time.sleep(0.01)
        if lost == "node":
            cluster.remove_node(second, allow_graceful=False)
        else:
            os.kill(int(min(pids.iterdir()).name), signal.SIGKILL)
        print(f"lost a {lost}", flush=True)

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    try:
        app(["scan", *arguments, "--out", str(results), "--ray", cluster.address], standalone_mode=False)
        losing.join()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
