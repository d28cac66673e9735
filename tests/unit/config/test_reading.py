"""Where settings come from, and what is said of faults in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from patchserve_server.config import ConfigurationError, Origin, Settings, read_configuration
from patchserve_server.config.reading import check_file
from patchserve_server.config.variables import OF_CLIENTS

CLIENT = Path(__file__).resolve().parents[3] / "client" / "patchserve_client"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PATCHSERVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "patchserve.toml"


def faults(file: Path, content: str | bytes) -> list[str]:
    """What is wrong with a file of this content, without its path."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError) as caught:
        check_file(file)
    return [str(problem).removeprefix(str(file)) for problem in caught.value.problems]


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("# a comment\nport = 1\nmax_calls = 11\n\nthreads = 111\n")
    monkeypatch.setenv("PATCHSERVE_PORT", "2")
    monkeypatch.setenv("PATCHSERVE_MAX_CALLS", "22")
    read = read_configuration({"port": "3"}, file)
    assert (read.settings.port, read.settings.max_calls, read.settings.threads) == (3, 22, 111)
    assert read.origins["port"] == Origin("flag", "--port")
    assert read.origins["max_calls"] == Origin("variable", "PATCHSERVE_MAX_CALLS")
    assert read.origins["threads"] == Origin("file", f"{file}:5")
    assert read.origins["host"] == Origin("default")
    assert list(read.origins) == list(Settings.model_fields)


def test_a_variable_can_name_the_file_and_a_flag_names_another_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("port = 1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATCHSERVE_CONFIG", "~/patchserve.toml")
    assert read_configuration({}).settings.port == 1
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    assert read_configuration({}, other).settings.port == 2
    monkeypatch.setenv("PATCHSERVE_CONFIG", "~nobody-of-that-name/x")
    with pytest.raises(ConfigurationError, match=r"the variable PATCHSERVE_CONFIG is .* the user after ~ is unknown"):
        read_configuration({})


def test_only_reading_looks_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_PORT", "2")
    assert Settings().port == Settings.model_fields["port"].default


def test_every_fault_is_found_in_one_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("prot = 1\nmax_calls = 1\nheatmap_scale = 'warm'\nstor = 's'\n")
    monkeypatch.setenv("PATCHSERVE_THREADS", "0")
    monkeypatch.setenv("PATCHSERVE_MAX_CALS", "3")
    with pytest.raises(ConfigurationError) as caught:
        read_configuration({"port": "abc"}, file)
    assert [problem.line for problem in caught.value.problems if problem.line] == [1, 2, 3, 4]
    assert sorted(map(str, caught.value.problems)) == sorted(
        [
            f"{file}, line 1: there is no setting 'prot'. Did you mean port?",
            f"{file}, line 2: max_calls is 1; it must be a whole number of at least 2.",
            f"{file}, line 3: heatmap_scale is 'warm'; it must be one of relative, calibrated.",
            f"{file}, line 4: there is no setting 'stor'. Did you mean store?",
            "the variable PATCHSERVE_THREADS is '0'; it must be a whole number of at least 1.",
            "the variable PATCHSERVE_MAX_CALS is no setting. Did you mean PATCHSERVE_MAX_CALLS?",
            "--port is 'abc'; it must be a whole number from 0 to 65535.",
        ]
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max-calls = 5", ["line 1: there is no setting 'max-calls'. Did you mean max_calls?"]),
        ("MAX_CALLS = 5", ["line 1: there is no setting 'MAX_CALLS'. Did you mean max_calls?"]),
        ("zzz = 5", ["line 1: there is no setting 'zzz'"]),
        ("\n[limits]\nmax_calls = 5", ["line 2: there is no table 'limits'; settings, such as max_calls, are in no"]),
        ("[port]\nx = 5", ["line 1: port is a table; it must be a whole number from 0 to 65535."]),
        ("port = true", ["line 1: port is True: only switches are true or false"]),
        ("drain_grace_s = inf", ["line 1: drain_grace_s is inf; it must be a number of at least 0."]),
        ("max_timeout_s = nan", ["line 1: max_timeout_s is nan; it must be a number above 0."]),
        ("weights = 5", ["line 1: weights is 5; it must be a path."]),
        ("weights = ['a']", ["line 1: weights is ['a']; it must be a path."]),
        ("store = 5", ["line 1: store is 5: it is text: a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX"]),
        (
            "store = 'ftp://host/x'",
            ["line 1: store is 'ftp://host/x': A store's URL cannot begin with ftp://; allowed are a folder, s3://BUC"],
        ),
        (
            "store = 's3:/bucket/x'",
            ["line 1: store is 's3:/bucket/x': A URL has two slashes after its colon; allowed are s3://BUCKET"],
        ),
        ("store = 'gs:'", ["line 1: store is 'gs:': A URL has two slashes after its colon"]),
        ("host = 1979-05-27", ["line 1: host is datetime.date(1979, 5, 27); it must be a text"]),
        ("fronts = 65", ["line 1: fronts is 65: write auto, or a number from 1 to 64"]),
        ("http_allowed_hosts = ['a', 'b,c']", ["line 1: http_allowed_hosts is ['a', 'b,c']; it must be"]),
        ('jwt_issuer = """\nport = "x"\n"""\nport = "y"', ["line 4: port is 'y'; it must be a whole number"]),
        ("port = 1\nport = 2", ["line 2: it is no valid TOML: Cannot overwrite a value."]),
        ("port = 1\nhost = ", ["line 2: it is no valid TOML: Invalid value."]),
        ("port = 1\nhosts = [1,\n", ["line 2: it is no valid TOML: Invalid value."]),
        ("a = " + "[" * 10_000, ["it is no valid TOML: arrays or tables are nested too deeply."]),
        ("\ufeffport = 1", ["line 1: it begins with a byte order mark; save it as UTF-8 without one."]),
        pytest.param(f"port = {'9' * 5000}", ["it has a number with too many digits."], id="digits"),
        pytest.param(f"#{'x' * 2**18}", ["it has more than 262,144 bytes."], id="large"),
        (b"host = '\xff'", ["it is no text in UTF-8, as TOML must be (byte 8)."]),
    ],
)
def test_a_fault_of_a_file_has_its_line_and_says_what_is_allowed(
    file: Path, content: str | bytes, expected: list[str]
) -> None:
    found = faults(file, content)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.lstrip(",: ").startswith(start)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=rf"{re.escape(str(path))}: {reason}.*can read\."):
            read_configuration({}, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only Unix has named pipes")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match=rf"{re.escape(str(path))}: it is no plain file"):
            read_configuration({}, path)


def test_of_very_many_unknown_keys_the_first_are_named(file: Path) -> None:
    found = faults(file, "".join(f"k{number} = 1\n" for number in range(10_000)))
    assert len(found) == 101
    assert {", line 100: there is no setting 'k99'", ": there are 9900 more keys that are no settings."} < set(found)


def test_a_file_may_write_numbers_and_words_as_such(file: Path) -> None:
    file.write_text("fronts = 2\nhttp_allowed_hosts = ['a.example', 'b']\nbackbone_layers = [1, 2]\nload_timeout_s = 5")
    settings = read_configuration({}, file).settings
    assert (settings.fronts, settings.http_allowed_hosts, settings.backbone_layers) == ("2", "a.example,b", "1,2")
    assert settings.load_timeout_s == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATCHSERVE_PORT", "tcp://10.0.0.1:50051"),
        ("PATCHSERVE_SERVICE_HOST", "10.0.0.1"),
        ("PATCHSERVE_SERVICE_PORT", "50051"),
        ("PATCHSERVE_SERVICE_PORT_GRPC", "50051"),
        ("PATCHSERVE_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("PATCHSERVE_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("PATCHSERVE_HEADLESS_SERVICE_PORT", "50051"),
        ("PATCHSERVE_HEADLESS_PORT", "tcp://10.0.0.1:50051"),
        ("PATCHSERVE_TOKEN", "of a client"),
        ("PATCHSERVE_MAX_CALS", ""),
        ("ANOTHER_MAX_CALS", "3"),
    ],
)
def test_variables_of_kubernetes_and_of_clients_are_left_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    read = read_configuration({})
    assert read.settings == Settings()
    assert {origin.kind for origin in read.origins.values()} == {"default"}


def test_the_variables_of_the_client_are_known_to_the_server() -> None:
    sources = " ".join(path.read_text() for path in CLIENT.rglob("*.py"))
    assert set(re.findall(r"\bPATCHSERVE_[A-Z_]+[A-Z]", sources)) == OF_CLIENTS
