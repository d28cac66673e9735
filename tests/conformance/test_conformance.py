"""The clients of all languages see the same: each runs the cases with a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conformance.calls import Json, read_cases
from conformance.expectations import differences, facts, unmet
from conformance.guarded import guarded
from conformance.images import write_images
from conformance.languages import LANGUAGES, REPO, Language
from e2e.in_process import in_process_server

from patchserve_server.domain.ports import Detector

CASES = Path(__file__).parent / "cases"
SUITES = ("service", "limits", "guarded")
RUNNER_TIMEOUT_S = 120
Run = Callable[[Language, str, str], Json]


def server_of(suite: str, folder: Path, detector: Detector, stack: ExitStack) -> list[str]:
    """Start the server of a suite, write its cases to a file, and return the flags of the runner."""
    told = json.loads((CASES / f"{suite}.json").read_text())
    if suite == "guarded":
        secured = stack.enter_context(guarded(folder))
        address, flags = secured.address, secured.flags
        for case in told["cases"]:
            case["token"] = secured.tokens[case["token"]]
    else:
        server = in_process_server(detector=detector, **told["server_settings"])
        address, flags = stack.enter_context(server), ()
    cases, images = folder / "cases.json", folder / "images"
    cases.write_text(json.dumps(told).replace("@9000 letters", "a" * 9000))
    images.mkdir()
    write_images(images)
    return ["--server", address, "--cases", str(cases), "--images", str(images), *flags]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, detector: Detector) -> Iterator[Run]:
    """Runs a suite once with the runner of a language, and returns the line of a case."""
    with ExitStack() as stack:
        flags = cache(lambda suite: server_of(suite, tmp_path_factory.mktemp(suite), detector, stack))

        @cache  # of what the runner printed, so that one that fails is not run for every case
        def printed(language: Language, suite: str) -> subprocess.CompletedProcess[str]:
            environment = os.environ | {"PYTHONPATH": f"{REPO / 'tests'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
            command = [*language.runner, *flags(suite)]
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=RUNNER_TIMEOUT_S,
                env=environment,
                cwd=REPO,
                check=False,
            )

        def line(language: Language, suite: str, name: str) -> Json:
            done = printed(language, suite)
            lines: dict[str, Json] = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
            assert name in lines, f"The runner ended with {done.returncode} before this case. {done.stderr}"
            return lines[name]

        yield line


# These take other files, a full disk, a bug, a start, a stop, a minute of not reading or not sending, or bytes that are
# no message.
NOT_A_CALLERS_DOING = {
    "BANK_MISMATCH",
    "DRAINING",
    "ENGINE_LOST",
    "IDLE",
    "INTERNAL",
    "MALFORMED_MESSAGE",
    "MESSAGE_TIMEOUT",
    "NOT_READY",
    "READER_STALLED",
    "REFERENCE_DAMAGED",
    "STORAGE_FULL",
    "STORAGE_UNAVAILABLE",
}

# The clients speak gRPC.
OF_HTTP = {
    "HEADERS_TOO_LARGE",
    "HTTP_METHOD",
    "IMAGE_NOT_KEPT",
    "MALFORMED_REQUEST",
    "OTHER_SITE",
    "OUTPUT_NOT_FOUND",
    "UNKNOWN_HOST",
    "UNKNOWN_PATH",
    "UNSUPPORTED_MEDIA_TYPE",
    "UPGRADE_REQUIRED",
}

# Clients in other languages have no call that takes the file of a reference.
OF_PYTHON = {"INVALID_REFERENCE_FILE"}


def reasons(value: Any) -> set[str]:
    """All reasons in an expectation, stream results included."""
    if isinstance(value, list):
        return {reason for item in value for reason in reasons(item)}
    if isinstance(value, dict):
        return {value["reason"]} if value.get("reason") else reasons(list(value.values()))
    return set()


def test_every_error_that_a_caller_can_cause_has_a_case() -> None:
    page = (REPO / "docs/errors.md").read_text()
    documented = set(re.findall(r"^\| ([A-Z_]+) \| [A-Z_]+ \|", page, re.MULTILINE))
    covered = {reason for suite in SUITES for case in read_cases(CASES / f"{suite}.json") for reason in reasons(case)}
    assert documented - NOT_A_CALLERS_DOING - OF_HTTP - OF_PYTHON == covered


def cases_of_all() -> list[Any]:
    return [
        pytest.param(suite, case, id=f"{suite}-{case['name']}")
        for suite in SUITES
        for case in read_cases(CASES / f"{suite}.json")
    ]


def without_drift(value: Any) -> Any:
    """The runners share a server, whose references drift with the images that the runners before have sent."""
    if isinstance(value, list):
        return [without_drift(item) for item in value]
    if isinstance(value, dict):
        return {key: without_drift(item) for key, item in value.items() if key != "drift"}
    return value


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
@pytest.mark.parametrize(("suite", "case"), cases_of_all())
def test_every_client_sees_the_same(run: Run, suite: str, case: Json, language: Language) -> None:
    if not language.is_built:
        pytest.skip(f"the client in {language.name} is not built: make test-clients")
    line = run(language, suite, case["name"])
    found = facts(case, line)
    assert not unmet(case, found), line["error"]
    if case.get("compare", True):
        assert not differences(without_drift(facts(case, run(LANGUAGES[0], suite, case["name"]))), found)
