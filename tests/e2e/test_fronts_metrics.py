"""With several fronts, one port has the metrics of all processes."""

from __future__ import annotations

import os
import signal

from e2e.harness import load, metrics_url_in
from e2e.processes import server_of_processes
from fakes.gray import gray_png
from fakes.scrape import scrape
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest

REQUEST = InferRequest(reference_id="belt", image=gray_png(100))


def test_one_scrape_has_all_processes_and_what_an_ended_front_has_counted() -> None:
    with server_of_processes("--metrics-port", "0") as server:
        assert server.process.stdout is not None
        url = metrics_url_in(server.process.stdout.readline())
        with server.stub_at(0) as first, server.stub_at(1) as second:
            load(first, "belt")
            for stub in (first, second):
                for _ in range(3):
                    stub.Infer(REQUEST)
        found = scrape(url)
        assert found.total("rpc_requests_total", method="Infer", code="OK") == 6
        assert found.total("verdicts_total", reference="belt") == 6
        assert found.total("batch_images_sum") == 6  # of the engine
        assert found.total("references", state="open") == 1
        assert len(found.matching("build_info")) == 1
        assert found.total("ready") == 1
        names = {sample.labels["process"] for sample in found.matching("process_resident_memory_bytes")}
        assert names == {"parent", "engine", "front 0", "front 1"}
        ended = server.pid_of("front 1")
        os.kill(ended, signal.SIGKILL)
        wait_until(lambda: server.pid_of("front 1") not in (0, ended))
        wait_until(lambda: scrape(url).total("process_start_time_seconds", process="front 1") > 0)
        assert scrape(url).total("rpc_requests_total", method="Infer", code="OK") == 6
