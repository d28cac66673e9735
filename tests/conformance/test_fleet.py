"""The clients of all languages behave the same before a fleet: each runs its load generator with a scripted server.

README.md says what it calls. Here one server plays all of a fleet: it is unavailable for some calls, ends streams, and
does not know what the client has changed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from conformance.languages import LANGUAGES, REPO, Language
from e2e.in_process import in_process_server
from fakes.fake_server import FakeServer, serving
from fakes.faults import Fault, unavailable
from fakes.images import card, encoded

from patchserve_client import Client

ROUNDS = 3
TIMEOUT_S = 60
RETRY_AFTER_S = 0.3  # longer than the first waits without it
LOST = Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed.")
RESET = Fault(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
ABOUT_ONE = ("GetReference", "Infer", "InferStream", "LoadReference")
ABOUT_ALL = ("GetServerInfo", "ListReferences")
KINDS = {*ABOUT_ONE, *ABOUT_ALL}

Soak = Callable[[str], dict[str, Any]]


@pytest.fixture(params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    if not chosen.is_built:
        pytest.skip(f"the client in {chosen.name} is not built: make test-clients")
    return chosen


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        load(server.address)
        server.requests.clear()
        server.addressed.clear()
        yield server


@pytest.fixture
def command(language: Language, tmp_path: Path) -> list[str]:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(card(number)))
    return [*language.soak, "--reference", "belt", "--images", str(tmp_path)]


def load(address: str) -> None:
    with Client(address) as client:
        client.load_reference([encoded(card(0))], "belt")


def counted(output: str, language: Language) -> dict[str, Any]:
    """What the last line says, if no call has failed."""
    started, line = map(json.loads, output.splitlines())
    assert started == {"started": True}
    assert (line["language"], line["failures"]) == (language.name, [])
    assert line["calls"].keys() == KINDS
    assert all(count["failed"] == 0 for count in line["calls"].values())
    return {kind: count["ok"] for kind, count in line["calls"].items()}


@pytest.fixture
def soak(language: Language, command: list[str]) -> Soak:
    """Runs a few rounds; returns how many calls of each kind have succeeded."""

    def run(address: str) -> dict[str, Any]:
        line = [*command, "--server", address, "--rounds", str(ROUNDS)]
        environment = os.environ | {"GRPC_VERBOSITY": "NONE"}
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=REPO, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return counted(done.stdout, language)

    return run


def own_inspections(fake: FakeServer, language: Language) -> list[Any]:
    """Those of the reference that the client itself loads."""
    return [request for request in fake.requests["Infer"] if request.reference_id == f"soak-{language.name}"]


def test_a_client_repeats_calls_resumes_streams_and_finds_its_own_changes(
    fake: FakeServer, soak: Soak, language: Language
) -> None:
    for method in ("GetReference", "GetServerInfo", "Infer", "ListReferences", "LoadReference"):
        fake.fail(method, LOST)
        fake.fail(method, unavailable())
    fake.stream_ends.extend([(1, LOST), (0, unavailable())])

    assert soak(fake.address) == dict.fromkeys(KINDS, ROUNDS)
    assert not any(fake.faults.values())
    assert len(fake.requests["InferStream"]) == 3
    assert {frame.frame_id for frame in fake.requests["frame"]} == {str(number) for number in range(ROUNDS)}

    own = f"soak-{language.name}"
    assert set(fake.addressed["Infer"]) == {"belt", own}
    assert set(fake.addressed["GetReference"] + fake.addressed["InferStream"]) == {"belt"}
    assert set(fake.addressed["LoadReference"]) == {own}
    assert {header for method in ABOUT_ALL for header in fake.addressed[method]} == {None}

    asked = own_inspections(fake, language)
    assert all(len(request.expected_revision) == 64 for request in asked)
    assert {request.expected_revision for request in fake.requests["Infer"] if request not in asked} == {""}


def test_a_stream_is_not_resumed_before_the_time_that_the_server_asks_for(fake: FakeServer, soak: Soak) -> None:
    told = unavailable(retry_after_s=RETRY_AFTER_S)
    fake.stream_ends.extend([(frames, told) for frames in (0, 0, 1, 0, 1, 0)])
    soak(fake.address)
    assert not fake.stream_ends
    waits_s = [began_s - ended_s for (_, ended_s), (began_s, _) in pairwise(fake.stream_times_s)]
    assert len(waits_s) == 5
    assert min(waits_s) >= RETRY_AFTER_S


def test_and_asks_without_them_if_somebody_else_has_changed_the_reference(
    fake: FakeServer, soak: Soak, language: Language
) -> None:
    fake.changed_by_others.add(f"soak-{language.name}")
    fake.stream_ends.append((1, RESET))
    fake.fail("LoadReference", unavailable(retry_after_s=0.001), times=4)
    soak(fake.address)
    asked = own_inspections(fake, language)
    assert [bool(request.expected_revision) for request in asked] == [True, False] * ROUNDS
    assert len(fake.requests["InferStream"]) == 2
    assert len(fake.requests["LoadReference"]) == ROUNDS + 4


def test_a_signal_ends_it_and_no_call_fails(language: Language, command: list[str]) -> None:
    with in_process_server() as address:
        load(address)
        process = subprocess.Popen([*command, "--server", address], stdout=subprocess.PIPE, text=True, cwd=REPO)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert min(counted(first + rest, language).values()) > 0
