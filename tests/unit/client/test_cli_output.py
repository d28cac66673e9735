"""`--output` of every command: what programs read stays as it is."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import reference
from fakes.stats import server_stats
from fakes.terminal import Run
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve_client import ReferenceInfo, ServerInfo
from patchserve_client.cli._formats import OutputFormat, RecordPrinter, columns_of, flat, print_results

EXPECTED = Path(__file__).parent / "outputs"
FORMATS = ["text", "json", "csv", "jsonl"]
COMMANDS: dict[str, list[str]] = {
    "info": ["info"],
    "health": ["health"],
    "reference_load": ["reference", "load", "FOLDER/a.png", "--id", "belt"],
    "reference_loads": ["reference", "loads"],
    "reference_list": ["reference", "list"],
    "reference_show": ["reference", "show", "line"],
    "reference_images": ["reference", "images", "line", "--out", "FOLDER/out"],
    "reference_tune": ["reference", "tune", "line", "--sensitivity", "1.5"],
    "reference_restore": ["reference", "restore", "line"],
    "reference_delete": ["reference", "delete", "line"],
    "infer": ["infer", "FOLDER"],
    "stream": ["stream", "FOLDER"],
    "top": ["top", "--once", "--interval", "10ms"],
}
UPDATE = os.environ.get("UPDATE_OUTPUTS") == "1"  # writes the expected files; read their difference


@pytest.fixture
def run_named(run: Run, fake: FakeServer, folder: Path) -> Callable[[str, str], str]:
    """Runs a command of COMMANDS; returns its output, without what differs from run to run."""
    (folder / "d.png").write_bytes(b"")  # an image that fails
    fake.references["line"] = reference("line", 3)
    fake.references["line"].previous_revision = "0" * 64
    fake.loads.append(reference_pb2.Load(reference_id="belt", stage=reference_pb2.LOAD_STAGE_EMBED, steps_done=3))
    fake.loads[0].start_time.FromJsonString("2025-01-02T03:04:05Z")
    fake.stats.clear()
    fake.stats.extend([server_stats(0, uptime_s=1), server_stats(10, uptime_s=3)])

    def invoke(name: str, output: str) -> str:
        arguments = [word.replace("FOLDER", str(folder)) for word in COMMANDS[name]]
        _, stdout, _ = run(*arguments, "--output", output)
        stdout = stdout.replace(str(folder), "FOLDER").replace(fake.address, "HOST:PORT")
        stdout = re.sub(r'"elapsed_s": [\d.e-]+', '"elapsed_s": 0.5', stdout)
        stdout = re.sub(r"in [\d.]+ s \([\d.]+/s\)", "in 0.5 s (8.0/s)", stdout)
        if output == "text":  # columns are as wide as the path of the folder
            stdout = re.sub(r" {2,}", "  ", stdout)
        this_year = f"{datetime.now(UTC):%Y}"
        return re.sub(rf"{this_year}-\d\d-\d\dT[\d:.]+\+00:00", "2025-01-02T03:04:05+00:00", stdout)

    return invoke


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_the_expected_one(run_named: Callable[[str, str], str], name: str, output: str) -> None:
    stdout = run_named(name, output)
    file = EXPECTED / f"{name}.{'txt' if output == 'text' else output}"
    if UPDATE:
        file.parent.mkdir(exist_ok=True)
        file.write_text(stdout)
    assert stdout == file.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_formats_of_programs_can_be_read(name: str) -> None:
    json.loads((EXPECTED / f"{name}.json").read_text())
    for line in (EXPECTED / f"{name}.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
    header, *rows = csv.reader(io.StringIO((EXPECTED / f"{name}.csv").read_text()))
    assert len(set(header)) == len(header)
    assert all(len(row) == len(header) for row in rows)


# Of the client, which says more than the contract, or says it flatter.
OWN_NAMES = {"images", "cost", "coreset_ratio", "coreset_max_patches", "input_px", "aspect", "tile_px", "tile_overlap"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ServerInfo, server_info_pb2.GetServerInfoResponse.DESCRIPTOR),
        (ReferenceInfo, reference_pb2.Reference.DESCRIPTOR),
    ],
)
def test_fields_have_the_names_of_the_contract(record: type, message: Descriptor) -> None:
    known = {field.name for field in message.fields}
    assert {name.partition(".")[0] for name in columns_of(record)} - OWN_NAMES <= known


def test_a_result_has_the_names_of_the_contract(run: Run, folder: Path) -> None:
    (result,) = json.loads(run("infer", folder / "b.png", "--output", "json")[1])["results"]
    known = {field.name for field in inference_pb2.InferResponse.DESCRIPTOR.fields}
    assert set(result) - {"file", "verdict", "ratio", "threshold", "overlay"} <= known
    assert set(result["anomaly"]) == {field.name for field in inference_pb2.AnomalyScore.DESCRIPTOR.fields}


def test_an_empty_list_has_a_header_as_csv(run: Run) -> None:
    assert run("reference", "list", "--output", "csv")[1].startswith("reference_id,revision,")
    assert run("reference", "list", "--output", "json")[1] == "[]\n"
    assert run("reference", "list", "--output", "jsonl")[1] == ""


def test_csv_of_infer_and_stream_has_the_columns_of_results_files(run: Run, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    for command in ("infer", "stream"):
        results.unlink(missing_ok=True)
        stdout = run(command, folder, "--output", "csv", "--results", results)[1]
        printed, written = (list(csv.DictReader(io.StringIO(text))) for text in (stdout, results.read_text()))
        assert [without_time(row) for row in printed] == [without_time(row) for row in written]
        assert len(printed) == 3


def without_time(row: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name != "time"}


def test_as_csv_a_stream_tells_the_rest_on_stderr(run: Run, folder: Path) -> None:
    _, stdout, stderr = run("stream", folder, "--output", "csv")
    assert len(stdout.splitlines()) == 1 + 3
    assert "3 frames in" in stderr


def test_a_stream_as_json_is_one_document(run: Run, folder: Path) -> None:
    events = json.loads(run("stream", folder, "--output", "json")[1])
    assert [event["event"] for event in events] == ["frame", "frame", "frame", "summary"]


@pytest.mark.parametrize("output", [OutputFormat.CSV, OutputFormat.JSON])
def test_records_that_come_later_are_printed_one_by_one(
    capsys: pytest.CaptureFixture[str], output: OutputFormat
) -> None:
    printer = RecordPrinter(output, ["a", "b"])
    printed = []
    for number in range(3):
        printer.add({"a": number}, {"a": number, "b": None})
        printed.append(capsys.readouterr().out)
    printer.end()
    printed.append(capsys.readouterr().out)
    if output is OutputFormat.CSV:
        assert printed == ["a,b\n0,\n", "1,\n", "2,\n", ""]
    else:
        assert json.loads("".join(printed)) == [{"a": 0}, {"a": 1}, {"a": 2}]
        assert '"a": 1' in printed[1]


@pytest.mark.parametrize(("output", "empty"), [(OutputFormat.CSV, "a,b\n"), (OutputFormat.JSON, "[]\n")])
def test_no_records_are_a_valid_document(capsys: pytest.CaptureFixture[str], output: OutputFormat, empty: str) -> None:
    RecordPrinter(output, ["a", "b"]).end()
    assert capsys.readouterr().out == empty


def test_control_characters_do_not_reach_a_terminal_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(OutputFormat.CSV, {"name": "a\x1b[31m\nb", "of": [1, 2], "is": True, "none": None})
    assert capsys.readouterr().out == 'name,of,is,none\na\\x1b[31m\\nb,"[1, 2]",true,\n'


NESTED: Any = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=9)


@given(st.dictionaries(st.sampled_from("xyz"), NESTED))
def test_a_flat_record_has_every_value_of_the_nested_one(record: dict[str, Any]) -> None:
    def value(path: str) -> Any:
        found: Any = record
        for name in path.split("."):
            found = found[name]
        return found

    def count(inner: Any) -> int:
        return sum(map(count, inner.values())) if isinstance(inner, dict) else 1

    cells = flat(record)
    assert all(value(path) == cell for path, cell in cells.items())
    assert len(cells) == count(record)


def test_columns_do_not_depend_on_values() -> None:
    columns = columns_of(ReferenceInfo)
    assert {"reference_id", "calibration.normal_scores.mean", "cost.memory_bytes"} <= set(columns)
    assert "cost" not in columns
