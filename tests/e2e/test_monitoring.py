"""A real Prometheus scrapes a real server: every query of the dashboard has data, and the alerts fire."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import promql_parser
import pytest
from e2e.dashboard import RULES, Panel, panels, selectors, write_impatient_rules
from e2e.harness import Stub
from e2e.monitored import Monitored, monitored_server
from e2e.prometheus import Prometheus, needs_prometheus, prometheus
from e2e.streaming import Feed, config, frame
from fakes.calibrated_detector import CalibratedDetector
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1 import inference_pb2, reference_pb2

LEVELS = (96, 98, 100, 102, 104)  # of the reference, in gray
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
OF_PROMETHEUS = {"up"}

pytestmark = needs_prometheus


def inspection(level: int) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(reference_id="parcels", image=gray_png(level))


@dataclass(frozen=True)
class Scene:
    """A server that is watched, its detector and its store."""

    server: Monitored
    stub: Stub
    detector: CalibratedDetector
    store: Path
    watching: Prometheus

    def infer(self, *levels: int) -> None:
        for level in levels:
            self.stub.Infer(inspection(level))

    def hold_up(self, call_count: int, hold_s: float) -> None:
        """Calls that wait this long for the detector; the last one's caller leaves."""
        self.detector.gate.clear()
        calls = [self.stub.Infer.future(inspection(LEVELS[number % 5])) for number in range(call_count)]
        time.sleep(hold_s)
        calls[-1].cancel()
        self.detector.gate.set()
        for call in calls:
            call.exception() if not call.cancelled() else None

    def fires(self, alert: str) -> Mapping[str, str]:
        """Waits for the alert; returns its labels."""
        wait_until(lambda: alert in self.watching.firing(), timeout_s=20)
        return self.watching.firing()[alert]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("monitoring")
    rules = write_impatient_rules(folder / "alerts.yml")
    detector = CalibratedDetector()
    limits = {"max_pending_images": 8, "client_share": 1, "max_batch_size": 1}
    with (
        monitored_server(folder, detector=detector, **limits) as server,
        prometheus([server.metrics], folder, rules=[rules], access=server.scrape_access()) as watching,
        server.channel() as channel,
    ):
        built = Scene(server, Stub(channel), detector, folder / "store", watching)
        wait_until(lambda: watching.value("up") == 1)
        put_to_use(built)
        wait_for_scrape(watching)
        put_to_use(built)  # a rate needs two scrapes with a difference between them
        wait_for_scrape(watching)
        wait_until(lambda: bool(watching.query("patchserve_reference_drift")))  # its first comparison imports SciPy
        yield built


def wait_for_scrape(watching: Prometheus) -> None:
    """Until Prometheus has taken what the server has counted so far."""
    for _ in range(2):  # one may have begun before
        last = watching.targets()[0]["lastScrape"]
        wait_until(lambda last=last: watching.targets()[0]["lastScrape"] > last)  # type: ignore[misc]


def put_to_use(scene: Scene) -> None:
    """Some of everything that the dashboard shows."""
    images = [gray_png(level) for level in LEVELS]
    scene.stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="parcels", images=images))
    scene.infer(*LEVELS * 8, 250)
    with suppress(grpc.RpcError):
        scene.stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[b"no image"]))
    with suppress(grpc.RpcError):
        scene.stub.Infer(inspection(100), timeout=1e-4)
    feed = Feed(config("parcels"), *map(frame, range(5), images), frame(5, b"no image"))
    feed.close()
    assert len(list(scene.stub.InferStream(iter(feed)))) == 7  # one says that the stream is ready
    scene.hold_up(12, hold_s=0.2)  # four of them are rejected


def test_every_series_of_a_rule_exists(scene: Scene) -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            for selector in selectors(rule["expr"]):
                assert_exists(scene.watching, selector)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_every_query_of_the_dashboard_returns_data(panel: Panel, scene: Scene) -> None:
    for query, line_name in panel.queries:
        values = scene.watching.query(query)
        assert not all(math.isnan(value) for value in values.values()), query
        found = {name for labels in values for name, _ in labels}
        assert named_labels(line_name) <= found, query


def test_a_certificate_and_a_token_about_to_end_fire(scene: Scene) -> None:
    assert scene.fires("PatchserveCertificateEnds")["instance"] == scene.server.metrics
    assert scene.fires("PatchserveTokenEnds")["instance"] == scene.server.metrics


def test_a_queue_that_grows_fires(scene: Scene) -> None:
    assert "PatchserveQueueGrows" not in scene.watching.firing()
    for _ in range(3):
        scene.hold_up(8, hold_s=1)
    assert scene.fires("PatchserveQueueGrows")["instance"] == scene.server.metrics


def test_calls_over_a_limit_fire(scene: Scene) -> None:
    scene.hold_up(40, hold_s=0.3)
    assert scene.fires("PatchserveRejects")["reason"]


def test_scores_that_drift_fire(scene: Scene) -> None:
    assert "PatchserveSceneChanged" not in scene.watching.firing()
    scene.infer(*[130] * 300)  # more than all others
    assert scene.fires("PatchserveSceneChanged")["reference"] == "parcels"
    assert scene.fires("PatchserveMostlyAnomalous")["reference"] == "parcels"


def test_a_store_that_is_lost_fires(scene: Scene) -> None:
    shutil.rmtree(scene.store)
    with pytest.raises(grpc.RpcError):
        scene.stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="parcels", images=[gray_png(1)]))
    assert scene.fires("PatchserveStoreFails")["severity"] == "critical"


def assert_exists(watching: Prometheus, selector: promql_parser.VectorSelector) -> None:
    """There is such a series with these labels. The value of a label need not exist: nothing may have failed yet."""
    name = str(selector.name)
    if name in RECORDED | OF_PROMETHEUS:
        return
    found = {label for labels in watching.query(name) for label, _ in labels}
    assert found, f"{name} is not in the scrape"
    assert {matcher.name for matcher in selector.matchers.matchers} <= found, f"{name} has other labels"


def named_labels(template: str) -> set[str]:
    """The labels in Grafana's name of a line: {{label}}."""
    return {part.partition("}}")[0] for part in template.split("{{")[1:]}
