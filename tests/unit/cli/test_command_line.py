"""`patchserve-server`: what is wrong is said in one line, without the usage, and the help names every setting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from patchserve_server.cli import flags, main
from patchserve_server.config import Settings, read_configuration


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PATCHSERVE_")]:
        monkeypatch.delenv(name)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["patchserve-server", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


WRONG: list[tuple[list[str], str]] = [
    (["serv"], "there is no command 'serv'. Did you mean serve?"),
    (["zzz"], "there is no command 'zzz'; there is serve, engine, doctor, config, token, cert"),
    (["token", "creat"], "there is no command 'creat'. Did you mean create?"),
    ([], "the following arguments are required: COMMAND"),
    (["serve", "--prot", "3"], "there is no option --prot. Did you mean --port?"),
    (["serve", "--prot=3"], "there is no option --prot. Did you mean --port?"),
    (["serve", "--max-message", "3"], "there is no option --max-message. Did you mean --max-message-mib?"),
    (["serve", "extra"], "'extra' is one argument too many"),
    (["serve", "--port"], "argument --port: expected one argument"),
    (["serve", "--port", "abc"], "--port is 'abc'; it must be a whole number from 0 to 65535."),
    (["serve", "--port", "65536"], "--port is '65536'; it must be a whole number from 0 to 65535."),
    (["serve", "--http-port", "65536"], "--http-port is '65536'; it must be a whole number from 0 to 65535."),
    (["serve", "--threads", "0"], "--threads is '0'; it must be a whole number of at least 1."),
    (["serve", "--client-share", "nan"], "--client-share is 'nan'; it must be a number above 0 and at most 1."),
    (["serve", "--precision", "fp8"], "--precision is 'fp8'; it must be one of fp32, tf32, bf16, fp16, int8, auto."),
    (["serve", "--device", "gpu"], "--device is 'gpu'; it must be one of auto, cpu, cuda, cuda:N, all."),
    (["serve", "--jwt-issuer", ""], "--jwt-issuer is ''; it must be a text that is not empty."),
    (["serve", "--store=~nobody-of-that-name/x"], "the user after ~ is unknown"),
    (
        ["token", "create", "--name", "a", "--scope", "infre"],
        "'infre' is not one of infer, manage. Did you mean infer?",
    ),
    (["cert", "create", "--days", "0"], "'0' is not a whole number from 1 to 825"),
    (["cert", "create", "--host", "0.0.0.0"], "nobody connects to 0.0.0.0"),
    (["cert", "create", "--host", "a b"], "'a b' is neither a host name nor an IP address"),
    (["cert", "create", "--out", "~nobody-of-that-name"], "the user after ~ is unknown"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_usage_is_explained_in_one_line(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = printed.err.splitlines()
    assert line.startswith("patchserve-server")
    assert says in line


def test_a_wrong_variable_is_blamed_and_not_its_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHSERVE_PORT", "abc")
    monkeypatch.setenv("PATCHSERVE_INSECURE", "maybe")
    assert run(monkeypatch, "serve") == 2
    assert capsys.readouterr().err.splitlines() == [
        "patchserve-server serve: the variable PATCHSERVE_PORT is 'abc'; it must be a whole number from 0 to 65535.",
        "patchserve-server serve: the variable PATCHSERVE_INSECURE is 'maybe'; it must be true or false.",
    ]


def test_a_flag_wins_over_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Settings] = []

    async def serve(settings: Settings, *_: object) -> None:
        started.append(settings)

    monkeypatch.setattr("patchserve_server.cli.serve.serve", serve)
    monkeypatch.setenv("PATCHSERVE_PORT", "abc")
    monkeypatch.setenv("PATCHSERVE_MAX_CALLS", "7")
    monkeypatch.setattr(sys, "argv", ["patchserve-server", "serve", "--port", "0", "--insecure"])
    main()
    assert (started[0].port, started[0].max_calls, started[0].insecure) == (0, 7, True)


def path_settings() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)]


def test_every_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert len(path_settings()) >= 8
    for name in path_settings():
        assert getattr(Settings(**{name: "~/x"}), name) == Path("/h/x")  # type: ignore[arg-type]
        monkeypatch.setenv(f"PATCHSERVE_{name.upper()}", "~/y")
    settings = read_configuration({}).settings
    assert {getattr(settings, name) for name in path_settings()} == {Path("/h/y")}
    assert Settings(host="unix:~/x.sock").host == "unix:/h/x.sock"
    assert Settings(store="/a/~b").store_folder == Path("/a/~b")
    assert Settings(store="~/x").store_folder == Path("/h/x")


def test_the_help_of_serve_has_every_flag_in_a_group_with_one_kind_of_metavar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "serve", "--help") == 0
    text = capsys.readouterr().out
    assert "factory" not in text
    assert "default: the number of cores" in " ".join(text.split())
    options = re.findall(r"^  (--[a-z0-9-]+)(?: ([^\s,]+))?", text, re.MULTILINE)
    flags_of_settings = ["--" + name.replace("_", "-") for name in Settings.model_fields]
    assert [flag for flag, _ in options] == ["--config", *flags_of_settings]
    for flag, metavar in options:
        assert metavar.isupper() or flag in ("--insecure", "--otel"), flag
    groups = re.findall(r"^([a-z ]+):$", text, re.MULTILINE)
    assert groups == ["options", *flags.GROUP_FROM.values()]


def test_the_version_and_the_list_of_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert re.fullmatch(r"patchserve \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
    assert run(monkeypatch, "--help") == 0
    assert all(
        f"    {command} " in capsys_text
        for capsys_text in [capsys.readouterr().out]
        for command in ("serve", "token", "cert")
    )


def test_without_the_packages_of_the_server_the_command_says_how_to_install_them() -> None:
    program = "import sys; sys.modules['pydantic'] = None; from patchserve_server.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "patchserve-server: only the client of patchserve is installed here (pydantic is missing). Install the server "
        'with `pip install ".[server]"` in a checkout of patchserve.\n'
    )


def test_the_command_line_needs_neither_cryptography_nor_pyjwt() -> None:
    missing = "import sys; sys.modules |= {'cryptography': None, 'jwt': None}; sys.argv[1:] = ['serve', '--help']"
    program = f"{missing}; from patchserve_server.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes the streams")
def test_standard_streams_that_are_closed_are_opened_again(tmp_path: Path) -> None:
    """Else the first socket is standard error, and the log has no stream."""
    code = (
        "import os, sys; from patchserve_server import cli; cli._open_closed_streams(); print(1, file=sys.stderr); "
        f"open({str(tmp_path / 'names')!r}, 'w').write(' '.join(os.readlink(f'/proc/self/fd/{{n}}') for n in range(3)))"
    )
    subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=True)
    assert set((tmp_path / "names").read_text().split()) == {os.devnull}
