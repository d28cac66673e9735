"""`token create --file` and `cert create`: what they write, and what they never touch."""

from __future__ import annotations

import ipaddress
import re
import resource
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from patchserve_server.access.certificates import reloading_identity
from patchserve_server.access.tokens import TokenVerifier, append_token, new_token, reloading_tokens
from patchserve_server.cli import main
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError

Run = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in a folder of its own: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["patchserve-server", *arguments])
        code: int | str | None = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_command


def test_token_create_appends_to_a_file_that_only_its_owner_reads(run: Run, tmp_path: Path) -> None:
    tokens = []
    for name in ("camera-1", "camera-2"):
        code, token, explanation = run("token", "create", "--name", name, "--scope", "infer", "--file=tokens")
        assert code == 0
        assert f"Give this token to {name} now" in explanation
        tokens.append(token.strip())
    file = tmp_path / "tokens"
    assert file.stat().st_mode & 0o777 == 0o600
    verifier = TokenVerifier(reloading_tokens(file))
    assert [verifier.verify(token).name for token in tokens] == ["camera-1", "camera-2"]
    assert not [token for token in tokens if token.removeprefix("patchserve_") in file.read_text()]


def test_a_token_that_would_never_be_valid_is_refused(run: Run, tmp_path: Path) -> None:
    arguments = ("token", "create", "--name", "a", "--scope", "infer", "--file", "tokens")
    code, printed, explanation = run(*arguments, "--expires", "2001-01-01")
    assert (code, printed) == (2, "")
    assert "2001-01-01 has passed" in explanation
    assert not (tmp_path / "tokens").exists()


def test_a_second_token_of_the_same_name_is_refused_unless_it_is_meant(run: Run, tmp_path: Path) -> None:
    arguments = ("token", "create", "--name", "a", "--scope", "manage", "--file", "tokens")
    run(*arguments)
    before = (tmp_path / "tokens").read_bytes()
    code, printed, _ = run(*arguments)
    assert "a has a token in tokens already" in str(code)
    assert not printed
    assert (tmp_path / "tokens").read_bytes() == before
    assert run(*arguments, "--another")[0] == 0
    assert len((tmp_path / "tokens").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "content", ["# a comment\n\n", "a infer sha256:" + "0" * 64, "a infer sha256:" + "0" * 64 + "\n"]
)
def test_a_line_is_added_after_whatever_is_there(content: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    file.chmod(0o640)
    token, line = new_token("b", [Scope.INFER])
    append_token(file, line)
    assert file.read_text() == content + ("" if content.endswith("\n") else "\n") + line + "\n"
    assert file.stat().st_mode & 0o777 == 0o640, "a file that exists keeps its mode and its owner"
    assert TokenVerifier(reloading_tokens(file)).verify(token).name == "b"


def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# one\nnonsense\n")
    with pytest.raises(StartupError, match=r"--file .*tokens, line 2: the format of a line is"):
        append_token(file, new_token("b", [Scope.INFER])[1])
    assert file.read_text() == "# one\nnonsense\n"


@pytest.mark.parametrize("name", ["missing/tokens", "."])
def test_a_file_that_cannot_be_written_is_named(name: str, run: Run) -> None:
    code, printed, _ = run("token", "create", "--name", "a", "--scope", "infer", "--file", name)
    assert re.search(rf"--file {re.escape(name)}: .+ Name a file that you can write", str(code))
    assert not printed, "a token that no file knows is of no use"


def test_many_tokens_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    made = [new_token(f"caller-{number}", [Scope.INFER]) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: append_token(tmp_path / "tokens", pair[1]), made))
    verifier = TokenVerifier(reloading_tokens(tmp_path / "tokens"))
    assert [verifier.verify(token).name for token, _ in made] == [f"caller-{number}" for number in range(40)]


def test_on_a_full_disk_the_file_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    append_token(file, new_token("a", [Scope.INFER])[1])
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (len(before) + 20, hard)
    )  # a write beyond it is cut short, as on a full disk
    try:
        with pytest.raises(StartupError, match="--file"):
            append_token(file, new_token("b", [Scope.INFER])[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before


def test_cert_create_writes_what_a_server_and_a_client_need(run: Run, tmp_path: Path) -> None:
    code, printed, _ = run("cert", "create", "--host", "belt.example", "--host", "::1", "--days", "7", "--out=new/tls")
    assert code == 0
    folder = tmp_path / "new" / "tls"
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "ca.pem": 0o644,
        "server.pem": 0o644,
        "server.key": 0o600,
    }
    assert reloading_identity(folder / "server.pem", folder / "server.key", None).value.key.startswith(b"-----BEGIN")
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["belt.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("::1")]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))
    ssl.create_default_context(cafile=folder / "ca.pem")
    server, client = printed.splitlines()[1:]
    assert server == (
        "Server: patchserve-server serve --host 0.0.0.0 --tls-cert new/tls/server.pem --tls-key new/tls/server.key"
    )
    assert client == "Client: patchserve --server belt.example:50051 --ca new/tls/ca.pem health"


@pytest.mark.parametrize("existing", ["ca.pem", "server.pem", "server.key"])
def test_cert_create_overwrites_nothing(existing: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / existing).write_text("precious")
    code, _, _ = run("cert", "create")
    assert f"tls/{existing} exists already" in str(code)
    assert [path.name for path in (tmp_path / "tls").iterdir()] == [existing]
    assert (tmp_path / "tls" / existing).read_text() == "precious"


def test_cert_create_names_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--out file/tls: Not a directory" in str(run("cert", "create", "--out", "file/tls")[0])
