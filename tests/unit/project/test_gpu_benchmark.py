"""benchmarks/gpu: its time is divided over its parts, every row is printed, and its engine part runs."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu import device_watch, engine, files
from gpu.__main__ import main
from gpu.device_watch import DeviceUse, DeviceWatch
from gpu.inputs import write_weights
from gpu.options import SMALL, Options, Scale
from gpu.part import main as main_of_a_part
from gpu.part import run_cases
from gpu.parts import Part, run_parts
from gpu.stages import self_us
from gpu.table import Case, Goal, Measured, Output, row
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys, time

def tell(**told):
    print(json.dumps(told), flush=True)

options = json.loads(sys.argv[1])
words = f"{options['precision']}, {options['bare_per_s']:g}"
tell(found={"precision": "bf16", "bare_per_s": 7.0}) if options["part"] == "first" else None
tell(what=f"{options['part']} 1", measured={"value": 5.0, "more": words})
print("no row")
if options["part"] == "hangs":
    print("waits here", file=sys.stderr, flush=True)
    time.sleep(600)
if options["part"] == "fails once":
    print("a trace of it", file=sys.stderr, flush=True)
    tell(what="fails once 2", failed="ValueError: no such thing")
    sys.exit()
if options["part"] == "fails":
    tell(what="fails 2", failed="ValueError: no such thing")
    tell(failure="RuntimeError: the device is gone")
    sys.exit("a trace")
if options["part"] == "dies":
    sys.exit(3)
tell(what=f"{options['part']} 2", measured={"value": 6.0})
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "part.py"
    path.write_text(PROGRAM)
    return (sys.executable, str(path))


def options(folder: Path = Path(), scale: Scale = SMALL) -> Options:
    return Options("engine", str(folder), "cpu", "auto", 0.0, "2", "efficientnet_lite2", scale=scale)


def part(name: str, precision: str = "", weight: float = 1) -> Part:
    return Part(name, precision, weight, [Case(f"{name} {number}", _never) for number in (1, 2, 3)[:2]])


def _never(*_: object) -> Measured:
    raise AssertionError


def run(
    parts: list[Part], program: tuple[str, ...], seconds: float = 60, at: Options | None = None
) -> tuple[list[str], list[str]]:
    """The rows, and the notes."""
    rows, notes = list[str](), list[str]()
    ends_s = time.monotonic() + seconds
    run_parts(parts, at or options(), ends_s, show=rows.append, note=notes.append, program=program)
    return rows, notes


def test_a_part_that_hangs_is_ended_and_the_next_one_has_its_share(program: tuple[str, ...]) -> None:
    rows, notes = run([part("hangs"), part("next", weight=9)], program, seconds=20)
    assert [each.split(" | ")[0] for each in rows] == ["| hangs 1", "| hangs 2", "| next 1", "| next 2"]
    assert "not measured: its time is over" in rows[1]
    assert "6 images/s" in rows[3]
    (note,) = notes
    assert "its time was over" in note
    assert "waits here" in note


def test_a_case_that_fails_leaves_its_traceback_and_the_words_of_its_server(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "fails-once.log").write_text("the server says")
    _, (note,) = run([part("fails once")], program, at=options(tmp_path))
    assert "a trace of it" in note
    assert note.endswith("the server says")


def test_a_part_that_hangs_says_where(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    said = list[str]()

    def hang(*_: object) -> None:
        gives_up_s = time.monotonic() + 30
        while "in hang" not in "".join(said) and time.monotonic() < gives_up_s:
            said.append(capfd.readouterr().err)

    monkeypatch.setattr("gpu.part._run", hang)
    monkeypatch.setattr(sys, "argv", ["part", options().to_json(), str(time.monotonic() - 1)])
    try:
        main_of_a_part()
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert "in hang" in "".join(said)


def test_a_part_that_fails_says_why_and_the_next_one_runs(program: tuple[str, ...]) -> None:
    rows, notes = run([part("fails"), part("dies"), part("next")], program)
    assert "not measured: ValueError: no such thing" in rows[1]
    assert "not measured: its part ended with code 3" in rows[3]
    assert "5 images/s" in rows[4]
    assert "a trace" in notes[0]


def test_what_ends_a_part_is_the_reason_of_all_that_it_has_not_measured(program: tuple[str, ...]) -> None:
    cases = [*part("fails").cases, Case[Any]("fails 3", _never)]
    rows, _ = run([Part("fails", "", 1, cases)], program)
    assert "not measured: RuntimeError: the device is gone" in rows[2]


def test_a_trial_reaches_no_goal(program: tuple[str, ...]) -> None:
    cases = [Case[Any](case.what, case.measure, Goal(1)) for case in part("next").cases]
    rows, _ = run([Part("next", "", 1, cases)], program)
    assert "| at least 1 images/s |  |" in rows[0]


def test_later_parts_know_what_the_first_one_has_found(program: tuple[str, ...]) -> None:
    rows, _ = run([part("first"), part("second"), part("third", "fp32")], program)
    assert [each.split("(")[1].split(")")[0] for each in rows[::2]] == ["auto, 0", "bf16, 7", "fp32, 7"]
    assert " | bf16 | " in rows[2]


def test_what_is_known_is_kept_and_the_table_comes_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(tmp_path / "new")
    for line in ("| head |", "| row |"):
        output.row(line)
    output.note("A note:\n\nwords")
    assert capsys.readouterr().out == "| head |\n| row |\n"
    assert (tmp_path / "new" / "table.md").read_text() == "| head |\n| row |\n"
    assert (tmp_path / "new" / "notes.md").read_text() == "A note:\n\nwords\n\n"
    output.end("Done.")
    note, _, table = capsys.readouterr().out.partition("The table once more:")
    assert "words" in note
    assert table == "\n\n| head |\n| row |\n\nDone.\n"


def test_what_came_before_the_program_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_s = list[float]()
    monkeypatch.setattr("gpu.__main__.write_weights", lambda *_: None)
    monkeypatch.setattr("gpu.__main__.run_parts", lambda _parts, _options, end_s, **_: ends_s.append(end_s))
    monkeypatch.setenv("OUT", str(tmp_path))
    flags = ["--device", "cpu", "--minutes", "60", "--began", str(time.time() - 1800)]
    monkeypatch.setattr(sys, "argv", ["run.sh", *flags])
    latest_s = time.monotonic() + 1900
    main()
    assert ends_s[0] < latest_s
    assert "| what |" in (tmp_path / "table.md").read_text()


def test_options_reach_a_part_unchanged() -> None:
    sent = options(Path("folder"), Scale(batches=(1, 2)))
    assert Options.from_json(sent.to_json()) == sent


@pytest.mark.parametrize(
    ("goal", "outcome", "expected"),
    [
        (
            Goal(0.75, of_ratio=True),
            Measured(5900, ratio=0.78, to="bare"),
            "5,900 images/s | 0.78 of bare | at least 0.75 | yes",
        ),
        (Goal(0.75, of_ratio=True), Measured(1100, ratio=0.19, to="bare"), "0.19 of bare | at least 0.75 | **no**"),
        (Goal(2, "ms", at_most=True), Measured(7.71, "ms"), "7.71 ms |  | at most 2 ms | **no**"),
        (Goal(3, "times", at_most=True), Measured(1.4, "times", more="B"), "1.4 times (B) |  | at most 3 times | yes"),
        (Goal(3, "times", at_most=True), Measured(1.4, "times", is_whole=False), "1.4 times |  | at most 3 times |  |"),
        (Goal(1500), "no time", "not measured: no time | | at least 1,500 images/s | |"),
        (Goal(0.9, of_ratio=True), Measured(5), "5 images/s |  | at least 0.9 |  |"),
    ],
)
def test_a_row_says_whether_the_goal_is_reached(goal: Goal, outcome: Measured | str, expected: str) -> None:
    assert expected in row("what", "fp32", goal, outcome)


def test_a_case_that_fails_does_not_end_its_part(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> Measured:
        raise ValueError("no\nsuch thing")

    cases = [Case("a", fail), Case("b", _of_seconds)]
    run_cases(cases, None, seconds=4, ends_s=time.monotonic() + 600)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0] == {"what": "a", "failed": "ValueError: no such thing"}
    assert told[1]["measured"]["value"] == 4


def test_cases_share_what_is_left_of_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [Case(name, _of_seconds) for name in "abcd"]
    run_cases(cases, None, seconds=600, ends_s=time.monotonic() + 80)
    given_s = [json.loads(line)["measured"]["value"] for line in capsys.readouterr().out.splitlines()]
    assert given_s[0] <= 10  # half of a quarter of 80 s
    assert max(given_s) <= 40  # of a case whose predecessors took no time
    run_cases(cases, None, seconds=600, ends_s=time.monotonic() - 1)
    assert capsys.readouterr().out == ""


def _of_seconds(_: object, seconds: float) -> Measured:
    return Measured(seconds, "s")


def test_every_case_of_the_engine_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = Scale(batches=(1, 2), batch=2, rows=(196, 200, 392), sides_px=(64,), mixed=2, mixed_too=(3,))
    wanted = options(tmp_path, scale)
    write_weights(wanted.backbone, wanted.weights(wanted.backbone))
    bench, cases = engine.Engine.start(wanted, wanted.backbone), engine.cases(wanted)
    run_cases(cases, bench, seconds=0.01, ends_s=time.monotonic() + 600)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measured = {each["what"]: each["measured"]["value"] for each in told if "measured" in each}
    assert list(measured) == [case.what for case in cases]
    assert measured["queries searched twice, 392 rows"] < 5  # with random features, nearly all of them are
    notes = [each["note"] for each in told if "note" in each]
    assert any("| search | " in note for note in notes)
    assert any("convolution" in note for note in notes)


def test_of_a_gpu_only_what_runs_on_it_counts() -> None:
    event = FunctionEventAvg()
    event.self_cpu_time_total, event.self_device_time_total = 7, 5
    assert self_us(event, is_gpu=False) == 7
    assert self_us(event, is_gpu=True) == 0
    event.device_type = DeviceType(DeviceType.CUDA.value)  # another object than DeviceType.CUDA, as in a profile
    assert self_us(event, is_gpu=True) == 5


def test_the_parts_have_cases_with_names_of_their_own() -> None:
    names: Callable[[str], list[str]] = lambda name: [  # noqa: E731
        case.what for case in engine.cases(Options(name, "", "cuda", "auto", 1, "auto", "wide_resnet50_2"))
    ]
    assert len(set(names("engine"))) == len(names("engine"))
    assert not set(names("engine")) & set(names("lite"))


@pytest.mark.parametrize("cases", [engine.cases, files.cases])
def test_nothing_is_measured_after_a_profile(cases: Callable[[Options], list[Case[Any]]]) -> None:
    profiles = [case.what.startswith("device busy") for case in cases(options())]
    assert profiles[-1]
    assert profiles == sorted(profiles)


class Driver:
    """The library of a driver whose GPU is half busy."""

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, _: object) -> int:  # noqa: N802
        return 0 if number == 1 else 2

    def nvmlDeviceGetUtilizationRates(self, _: object, found: Any) -> int:  # noqa: N802
        found._obj.gpu = 50
        return 0

    def nvmlDeviceGetMemoryInfo(self, _: object, found: Any) -> int:  # noqa: N802
        found._obj.used = 3 * 2**20
        return 0


def test_a_watch_says_how_busy_a_device_was_where_the_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_watch, "_BETWEEN_S", 0)
    watch = DeviceWatch("cuda:1", lambda _: Driver())
    while not watch._seen:
        time.sleep(0.001)
    assert watch.stop() == DeviceUse(0.5, 3)
    assert DeviceWatch("cuda", lambda _: Driver()).stop() is None
    assert DeviceWatch("cpu").stop() is None


IMPORTS = """
import sys
from importlib.metadata import packages_distributions

owners, there = packages_distributions(), set(sys.argv[1:])

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        known = {each.lower().replace("_", "-") for each in owners.get(name.partition(".")[0], ())}
        if known and not known & there:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
import patchserve_server.cli.commands, patchserve_server.engine.factory, patchserve_server.imaging.on_device.codec
import patchserve_server.bootstrap.processes.engine, patchserve_server.bootstrap.processes.front
import patchserve_server.bootstrap.processes.parent, gpu.__main__, gpu.load
"""
WITH_TORCH = {
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy", "triton"),
    *("numpy", "torch"),
}


def test_a_server_on_a_gpu_needs_only_what_is_packed() -> None:
    script = (ROOT / "benchmarks" / "gpu" / "pack.sh").read_text()
    packed = script.split("for name in ")[1].split("; do")[0].replace("\\", " ").split()
    environment = {**os.environ, "PYTHONPATH": ":".join([str(ROOT / "benchmarks"), *sys.path])}
    command = [sys.executable, "-c", IMPORTS, "patchserve", *packed, *WITH_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "gpu"], 'Unknown device "gpu". Use auto, cpu, cuda or cuda:N'),
        (["--device", "cpu", "--precision", "tf33"], "invalid choice: 'tf33'"),
        (["--device", "cpu", "--only", "nothing"], "--only nothing: no part has a name that begins so"),
    ],
)
def test_wrong_flags_are_told_before_anything_is_measured(
    flags: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.sh", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert words in told.err + str(ended.value.code)
    assert "| what |" not in told.out
