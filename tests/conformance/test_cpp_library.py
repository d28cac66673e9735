"""The C++ client's own tests, of what the cases cannot describe, such as callbacks that fail."""

from __future__ import annotations

import os
import subprocess

import pytest
from conformance.languages import CPP
from e2e.in_process import in_process_server
from fakes.images import card, encoded

from patchserve_client import Client

TESTS = CPP.parent / "client-test"


@pytest.mark.skipif(not TESTS.exists(), reason="the client in cpp is not built: make test-clients")
def test_the_tests_of_the_cpp_library_pass() -> None:
    with in_process_server() as address:
        with Client(address) as client:
            client.load_reference([encoded(card(0))], "kept")
        environment = {**os.environ, "PATCHSERVE_ADDRESS": address}
        done = subprocess.run([TESTS], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
