"""The alert rules and the dashboard of deploy/, as files. tests/e2e/test_monitoring.py runs them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml
from e2e.dashboard import DASHBOARD, FILES, RULES, Panel, panels, selectors

from patchserve_server.rpc.methods import METHODS, REFLECTION
from patchserve_server.rpc.reflection import REFLECTION_V1

REPO = Path(__file__).resolve().parents[3]
ENTRIES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ENTRIES if "alert" in rule]
PAGE = (REPO / "docs" / "deployment" / "alerts.md").read_text()
UNIT_TESTS = yaml.safe_load((REPO / "deploy" / "prometheus" / "tests" / "alerts.yml").read_text())["tests"]


def test_every_alert_is_on_the_page_in_this_order() -> None:
    assert re.findall(r"^### (Patchserve\w+)$", PAGE, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_every_alert_says_how_bad_it_is_and_what_happened() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_every_alert_fires_in_a_unit_test() -> None:
    cases = [case for test in UNIT_TESTS for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in ALERTS}


def test_probes_are_no_calls_whose_errors_count() -> None:
    probes = {"GET /health"}
    for path, method in METHODS.items():
        service, name = path.strip("/").split("/")
        if method.always_answered and service not in (REFLECTION, REFLECTION_V1):
            probes.add(name)
    texts = "".join((FILES / name).read_text() for name in ("alerts.yml", "dashboard.json"))
    (pattern,) = set(re.findall(r'method!~\\?"([^"\\]+)', texts))
    assert set(pattern.split("|")) == probes


def test_every_rule_that_an_expression_reads_is_recorded() -> None:
    read = {one.name for rule in ENTRIES for one in selectors(rule["expr"]) if one.name and ":" in one.name}
    assert read <= {rule["record"] for rule in ENTRIES if "record" in rule}


def test_the_adapter_of_the_autoscaler_reads_the_queues_wait() -> None:
    adapter = yaml.safe_load((REPO / "deploy" / "helm" / "patchserve" / "adapter-values.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod=~"a|b"')
    assert {one.name for one in selectors(query)} == {
        "patchserve_queue_wait_seconds_sum",
        "patchserve_queue_wait_seconds_count",
    }
    values = yaml.safe_load((REPO / "deploy" / "helm" / "patchserve" / "values.yaml").read_text())
    assert rule["name"]["as"] == values["autoscaling"]["metric"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_every_query_of_the_dashboard_is_promql_for_the_chosen_servers(panel: Panel) -> None:
    for query, _ in panel.queries:
        read = selectors(query)
        assert read
        for one in read:
            assert {"job", "instance"} <= {matcher.name for matcher in one.matchers.matchers}, query


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for at in places)
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
