"""Tests of the Java client that the cases cannot describe: callbacks, threads and TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conformance.languages import CLIENT, JAVA, JAVA_COMMAND
from e2e.in_process import in_process_server
from fakes.certificates import Authority
from fakes.images import card, encoded

pytestmark = pytest.mark.skipif(not JAVA.exists(), reason="the client in java is not built: make test-clients")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "card.jpg"
    path.write_bytes(encoded(card(0)))
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*JAVA_COMMAND, *map(str, command)], capture_output=True, text=True, timeout=120, check=False)


def test_callbacks_that_fail_and_streams_that_end_leave_nothing_behind(image: Path) -> None:
    library, program = CLIENT / "java/build/patchserve-client.jar", Path(__file__).with_name("JavaCallbacks.java")
    with in_process_server() as address:
        done = run("-cp", library, program, address, image)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("host", "authority", "complaint"),
    [
        ("127.0.0.1", "known", "NOT_FOUND REFERENCE_NOT_FOUND: "),
        ("127.0.0.1", "stranger", "UNAVAILABLE: io exception: unable to find valid certification path"),
        ("127.0.0.2", "known", "UNAVAILABLE: io exception: No subject alternative names matching IP address 127.0.0.2"),
    ],
    ids=["trusted", "signed by another authority", "the certificate of another address"],
)
def test_only_a_server_that_can_prove_its_name_is_trusted(
    host: str, authority: str, complaint: str, image: Path, tmp_path: Path
) -> None:
    known, stranger = Authority(), Authority("Another Authority")
    (tmp_path / "known.pem").write_bytes(known.certificate)
    (tmp_path / "stranger.pem").write_bytes(stranger.certificate)
    cert, key = known.write(tmp_path, "server")
    with in_process_server(host=host, tls_cert=cert, tls_key=key) as address:
        server = f"{host}:{address.rpartition(':')[2]}"
        done = run("-jar", JAVA, "infer", "--server", server, "--ca", tmp_path / f"{authority}.pem", image)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(complaint)
    assert len(done.stderr.splitlines()) == 1
