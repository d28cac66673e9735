"""`patchserve evaluate --sweep` against a scripted server. To that server red images are anomalous."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png
from fakes.terminal import Run, command
from google.rpc import error_details_pb2

from patchserve.v1 import reference_pb2
from patchserve_client import ScoringProfile
from patchserve_client.cli._sweep_options import INPUTS_PX, PROFILES

SMALL = ("--sweep-profile", "notebook", "--sweep-input", "224")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three intact and three damaged images, with one wrong verdict each, and a name that HTML must escape."""
    data = tmp_path / "da <ta>"
    names = {"train/good/0": "green", "train/good/1": "green", "train/good/2": "blue", "test/good/a": "green"}
    names |= {"test/good/b": "red", "test/good/c": "blue", "test/crack/<b>d": "red", "test/crack/e": "green"}
    for name, color in {**names, "test/dent/f": "red"}.items():
        path = data / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(color))
    return data


def swept(run: Run, *arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON document of a sweep."""
    found, stdout, _ = run("evaluate", *arguments, "--output=json")
    assert found == code
    document: dict[str, Any] = json.loads(stdout)
    return document


def test_every_setting_is_loaded_measured_and_deleted(run: Run, fake: FakeServer, root: Path) -> None:
    found = swept(run, root, "--sweep")
    tried = [(one["profile"], one["input_px"], one["coreset_ratio"]) for one in found["settings"]]
    with_bank = [profile for profile in PROFILES if profile is not ScoringProfile.SUBSPACE]
    expected = set(itertools.product(with_bank, INPUTS_PX, (None, 0.1)))
    assert {one for one in tried if one[0] != "subspace"} == expected
    assert len(tried) == len(set(tried)) == found["planned_settings"]
    loads = fake.requests["LoadReference"]
    assert [(load.input.longer_side_px, round(load.coreset.ratio, 3) or None) for load in loads] == [
        one[1:] for one in tried
    ]
    assert not fake.references
    assert len(fake.requests["InferStream"]) == len(tried)


def test_the_document_has_metrics_intervals_costs_and_the_choice(run: Run, root: Path) -> None:
    found = swept(run, root, *SMALL, "--sweep-coreset", "1,0.5")
    first, second = found["settings"]
    assert first["image_auroc"] == second["image_auroc"] == pytest.approx(2 / 3)
    low, high = first["intervals"]["image_auroc"]
    assert 0 <= low < 2 / 3 < high <= 1
    assert (first["bank_bytes"], first["image_ms"], first["reference_images"]) == (5 * 2**20, 0, 3)
    assert (found["chosen"], found["best"]) == (1, 1)
    assert (first["standing"], second["standing"]) == ("chosen", "as good")
    assert found["command"] == first["command"]
    assert found["conclusion"][0].startswith("Use notebook, input 224, all references: image AUROC 0.667 (")


@pytest.mark.parametrize(
    "options",
    [
        ("--sweep-coreset", "0.25", "--search-radius", "0.2", "--approximate-search", "--false-alarms", "5%"),
        ("--sweep-references", "2", "--coreset-max-patches", "99", "--aspect", "keep"),
        (
            "--sweep-references",
            "2",
            "--seed",
            "3",
            "--tile-px",
            "300",
            "--sweep-input",
            "auto",
            "--coreset-ratio",
            "0.5",
        ),
    ],
)
def test_the_printed_command_loads_the_same_reference(
    run: Run, fake: FakeServer, root: Path, options: tuple[str, ...]
) -> None:
    base = SMALL[:2] if "--sweep-input" in options else SMALL
    code, stdout, _ = run("evaluate", root, *base, *options)
    assert code == 0
    line = stdout.splitlines()[-1].removeprefix("To load it: ")
    assert run(*shlex.split(line)[1:])[0] == 0
    swept_load, loaded = fake.requests["LoadReference"]
    assert (swept_load.reference_id, loaded.reference_id) == ("evaluation", "default")
    loaded.reference_id = "evaluation"
    assert loaded == swept_load


def test_a_setting_that_the_server_refuses_is_a_line_with_its_reason(run: Run, fake: FakeServer, root: Path) -> None:
    fault = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "It needs more memory than allowed.", "MEMORY_BUDGET")
    fake.fail("LoadReference", fault)
    report = root.parent / "report.html"
    options = (root, *SMALL, "--sweep-coreset", "1,0.5", "--report", report)
    code, stdout, stderr = run("evaluate", *options)
    assert code == 1
    reason = "failed: It needs more memory than allowed. (MEMORY_BUDGET)"
    assert reason in stderr
    assert "1 setting could not be measured." in stdout
    assert "It needs more memory than allowed." in report.read_text()
    assert not fake.references
    fake.fail("LoadReference", fault)
    found = swept(run, root, *SMALL, "--sweep-coreset", "1,0.5", code=1)
    assert [one["standing"] for one in found["settings"]] == ["failed", "chosen"]


def test_an_older_server_says_what_it_does_not_know(run: Run, fake: FakeServer, root: Path) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="profile", description="Unknown.")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    message = "profile is 2; known values are 0 to 1."
    unknown = Fault(grpc.StatusCode.INVALID_ARGUMENT, message, "INVALID_FIELD", details)
    fake.fail("LoadReference", unknown)
    found = swept(run, root, "--sweep-profile", "paper,notebook", "--sweep-input", "224", "--coreset-ratio", 1, code=1)
    assert found["settings"][0]["reason"] == "This server is too old: it does not know the profile paper."
    assert found["chosen"] == 2
    fake.knows_input = False
    found = swept(run, root, *SMALL, code=1)
    reasons = {one["reason"] for one in found["settings"]}
    assert reasons == {"This server is too old: it does not know the size of model inputs, --input."}
    assert not fake.references


def test_without_a_server_the_sweep_ends_at_once_with_what_it_has(run: Run, fake: FakeServer, root: Path) -> None:
    gone = Fault(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.", "DRAINING")
    fake.stream_ends.extend([(99, gone), (1, gone)])  # the first stream has fewer images
    code, stdout, stderr = run("evaluate", root, *SMALL, "--sweep-coreset", "1,0.5,0.2,0.1")
    assert code == 1
    assert "The server is shutting down." in stderr
    assert "The sweep was ended after 1 of 4 settings." in stdout
    assert not fake.references


def test_ctrl_c_writes_the_report_of_what_was_measured(fake: FakeServer, root: Path) -> None:
    report = root.parent / "report.html"
    ratios = ",".join(str(ratio / 100) for ratio in range(1, 60))
    arguments = ("evaluate", root, *SMALL, "--sweep-coreset", ratios, "--report", report, "--server", fake.address)
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "1 of 59: notebook, input 224, coreset 1 %" in process.stderr.readline()
    loads = len(fake.requests["LoadReference"])
    fake.wait_for_request("LoadReference", loads + 1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted.\n" in stderr
    assert "The sweep was ended after" in stdout
    assert "The sweep was ended after" in report.read_text()
    assert not fake.references


def test_the_report_names_every_setting_and_the_worst_verdicts(run: Run, fake: FakeServer, root: Path) -> None:
    report, out = root.parent / "report.html", root.parent / "out"
    code, stdout, stderr = run("evaluate", root, *SMALL, "--sweep-coreset", "1,0.5", "--report", report, "--out", out)
    assert code == 0
    html = report.read_text()
    assert "&lt;b&gt;d.png" in html
    assert "<b>d" not in html
    assert html.count('<tr class="') == 2
    assert html.count("data:image/jpeg;base64,") == 2 * 6
    assert html.count("data:image/png;base64,") == 1
    assert len(html) < 300_000
    assert {path.name for path in out.iterdir()} == {"numbers.json", "sweep.png"}
    assert [line.split()[0] for line in stdout.splitlines()[:3]] == ["#", "1", "2"]
    assert "1 of 2: notebook, input 224, all references: image AUROC 0.667, 0.0 ms an image, 5.0 MiB, about" in stderr


def test_a_plain_evaluation_has_a_report_too(run: Run, fake: FakeServer, root: Path) -> None:
    report = root.parent / "report.html"
    assert run("evaluate", root, "--report", report)[0] == 0
    html = report.read_text()
    for text in ("2 of 6 verdicts are wrong.", "False alarm: 3.00 x", "Missed: 0.50 x", "0.8 to 90.6 %", "dent"):
        assert text in html
    assert html.count("data:image/png;base64,") == 2
    assert not fake.references


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--sweep-profile", "notbook"), "--sweep-profile takes profiles (notebook, paper"),
        (("--sweep-coreset", "1,0"), "--sweep-coreset takes shares above 0 and at most 1, separated by commas"),
        (("--sweep-references", "4;5"), '--sweep-references takes numbers of images, or "all", separated by commas'),
        (("--sweep-input", "0"), "--sweep-input takes numbers of pixels, or auto, separated by commas, not '0'."),
        (("--sweep-references", "9"), "has 3 images, not 9"),
        (("--sweep", "--keep"), "--sweep excludes --keep and --damage"),
        (("--sweep", "--seed", 1), "--seed needs --references"),
        (("--profile", "paper", "--sweep-profile", "paper"), "--profile and --sweep-profile exclude each other."),
        (("--references", 2, "--sweep-references", "1,2"), "--references and --sweep-references exclude each other."),
        (("--coreset-ratio", 0.1, "--sweep-coreset", "1"), "--coreset-ratio and --sweep-coreset exclude each other."),
        (("--coreset-max-patches", 9, "--sweep-coreset", "1"), "--coreset-max-patches and --sweep-coreset exclude"),
    ],
)
def test_wrong_usage_exits_with_2(
    run: Run, fake: FakeServer, root: Path, arguments: tuple[object, ...], complaint: str
) -> None:
    code, stdout, stderr = run("evaluate", root, *arguments)
    assert (code, stdout) == (2, "")
    assert complaint in stderr
    assert not fake.requests["LoadReference"]


def test_a_sweep_needs_both_kinds_of_images(run: Run, root: Path) -> None:
    for path in (root / "test/good").iterdir():
        path.unlink()
    code, _, stderr = run("evaluate", root, "--sweep")
    assert code == 2
    assert "A sweep needs intact and defective test images" in stderr


def test_profiles_that_a_sweep_tries_are_in_the_contract() -> None:
    known = set(reference_pb2.ScoringProfile.keys())
    assert {f"SCORING_PROFILE_{profile.name}" for profile in PROFILES} <= known
