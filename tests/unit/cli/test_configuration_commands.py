"""`config show|check|schema`, the sample file, and what the page says of them."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from patchserve_server.cli import main
from patchserve_server.config import Settings, read_configuration
from patchserve_server.config.changes import RUN_TIME_SETTINGS
from patchserve_server.config.schema import file_schema

REPO = Path(__file__).resolve().parents[3]
SAMPLE = REPO / "deploy" / "patchserve.toml"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PATCHSERVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `config` in a folder of its own: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["patchserve-server", "config", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_command


def test_show_has_a_line_for_every_setting_with_its_value_and_where_it_comes_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("\nthreads = 7\nhttp_allowed_hosts = ['a', 'b']\n")
    monkeypatch.setenv("PATCHSERVE_MAX_CALLS", "33")
    code, text, _ = run("show", "--config", "a.toml", "--port", "0", "--insecure")
    assert code == 0
    title, *lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert title == ["setting", "value", "from"]
    assert [words[0] for words in lines] == list(Settings.model_fields)
    for expected in (
        ["port", "0", "--port"],
        ["insecure", "true", "--insecure"],
        ["max_calls", "33", "PATCHSERVE_MAX_CALLS"],
        ["threads", "7", "a.toml:2"],
        ["http_allowed_hosts", "a,b", "a.toml:3"],
        ["store", "default"],
        ["log_level", "info", "default"],
    ):
        assert expected in lines


def test_show_as_a_document(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("store = 'x'\n")
    code, text, _ = run("show", "--config=a.toml", "--output", "json")
    document = json.loads(text)
    assert code == 0
    assert document["file"] == "a.toml"
    assert list(document["settings"]) == list(Settings.model_fields)
    assert document["settings"]["store"] == {"value": "x", "origin": "file", "place": "a.toml:1", "at_run_time": False}
    assert document["settings"]["log_level"]["at_run_time"]


def test_show_as_a_file_sets_the_same(run: Run, tmp_path: Path) -> None:
    flags: dict[str, str | bool] = {
        "store": 'a"b\\c',
        "port": "0",
        "insecure": True,
        "client_share": "0.25",
        "fronts": "auto",
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not True]
    code, text, _ = run("show", "--output", "toml", *arguments, "--insecure")
    assert code == 0
    (tmp_path / "a.toml").write_text(text)
    assert set(tomllib.loads(text)) == set(flags)
    assert read_configuration({}, tmp_path / "a.toml").settings == read_configuration(flags).settings


def test_show_with_a_fault_says_so_as_serve_does(run: Run) -> None:
    code, text, errors = run("show", "--threads", "0")
    assert (code, text) == (2, "")
    assert errors == "patchserve-server config show: --threads is '0'; it must be a whole number of at least 1.\n"


def test_check_prints_every_fault_in_the_order_of_the_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("threads = 0\nprot = 1\nport = -1\n")
    code, text, errors = run("check", "a.toml")
    assert (code, errors) == (1, "")
    assert text.splitlines() == [
        "a.toml, line 1: threads is 0; it must be a whole number of at least 1.",
        "a.toml, line 2: there is no setting 'prot'. Did you mean port?",
        "a.toml, line 3: port is -1; it must be a whole number from 0 to 65535.",
        "3 faults",
    ]
    code, text, _ = run("check", "--output", "json", "a.toml")
    document = json.loads(text)
    assert (code, document["is_valid"]) == (1, False)
    assert document["problems"][1] == {
        "line": 2,
        "key": "prot",
        "message": "there is no setting 'prot'. Did you mean port?",
    }


def test_check_looks_at_the_file_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_THREADS", "0")
    (tmp_path / "a.toml").write_text("port = 1\n")
    assert run("check", "a.toml") == (0, "a.toml: 1 setting, no fault\n", "")
    code, text, _ = run("check", "none.toml")
    assert code == 1
    assert "No such file" in text


def test_schema_prints_the_schema(run: Run) -> None:
    code, text, _ = run("schema")
    assert (code, json.loads(text)) == (0, file_schema())


def test_the_sample_has_every_setting_and_is_what_the_command_prints(run: Run) -> None:
    code, text, _ = run("show", "--output", "toml")
    assert code == 0
    assert SAMPLE.read_text() == text, "write it again: patchserve-server config show --output toml"
    assert re.findall(r"^#(\w+) =", text, re.MULTILINE) == list(Settings.model_fields)


def test_the_sample_sets_nothing_and_without_its_hashes_the_defaults(run: Run, tmp_path: Path) -> None:
    assert run("check", str(SAMPLE)) == (0, f"{SAMPLE}: 0 settings, no fault\n", "")
    lines = [line.removeprefix("#") for line in SAMPLE.read_text().splitlines() if re.match(r"#\w+ = .", line)]
    (tmp_path / "a.toml").write_text("\n".join(lines))
    assert len(lines) > 30
    assert run("check", "a.toml")[0] == 0
    assert read_configuration({}, tmp_path / "a.toml").settings == Settings()


def test_the_page_lists_what_may_change_at_run_time() -> None:
    section = (REPO / "docs/configuration.md").read_text().split("\n## Changes at run time\n")[1].split("\n## ")[0]
    listed = re.findall(r"`(\w+)`[,.]", section)
    assert listed == [name for name in Settings.model_fields if name in RUN_TIME_SETTINGS]
