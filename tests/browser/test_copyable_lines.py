"""The lines that the page gives to copy do what they say, also with names that a shell would take apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser.screens import ANOMALOUS, REPO, gray_file, inspect
from browser.tabs import Tab, watched_tab
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from fakes.gray import gray_png
from google.protobuf import json_format
from playwright.sync_api import Browser, Page, expect

from patchserve.v1.inference_pb2 import InferRequest, InferResponse
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

NAMES = ["plain.png", 'it\'s; $(touch taken) `id` & "x",\\ ü.png', "-rf.png", "a;type=text_plain,b.png"]


def copied(page: Page, language: str) -> str:
    """What the page gives to copy for a language."""
    details = page.locator("details.snippet")
    if details.get_attribute("open") is None:
        page.get_by_text("The same from a program").click()
    page.get_by_label(language, exact=True).check()
    return page.locator("pre").inner_text()


def run(command: list[str], folder: Path, **variables: str) -> str:
    path = os.pathsep.join(str(REPO / part) for part in ("client", "protos/python"))
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_run_and_give_the_verdict_of_the_page(tab: Tab, gray: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gray_png(ANOMALOUS))
    page = tab.open(f"try/{gray}")
    inspect(page, gray_file(ANOMALOUS, name))
    expect(page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")).to_be_visible()
    curl = run(["sh", "-c", copied(page, "curl")], tmp_path)
    assert json.loads(curl)["anomaly"]["raw_score"] == pytest.approx(50)
    python = run([sys.executable, "-c", copied(page, "Python")], tmp_path)
    assert python == "anomalous 2.50 x, 1 region\n"
    assert as_grpcurl(copied(page, "grpcurl"), tmp_path).anomaly.raw_score == pytest.approx(50)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [name]


def as_grpcurl(line: str, folder: Path) -> InferResponse:
    """What grpcurl would be answered, by a program in its place that notes its arguments and prints its input."""
    programs = folder / ".bin"
    programs.mkdir()
    (programs / "grpcurl").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$(dirname "$0")/arguments"\ncat\n')
    (programs / "grpcurl").chmod(0o755)
    sent = run(["sh", "-c", line], folder, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    plaintext, option, value, address, method = (programs / "arguments").read_text().splitlines()
    assert (plaintext, option, value, method) == ("-plaintext", "-d", "@", "patchserve.v1.PatchCoreService/Infer")
    with connect(address) as stub:
        return stub.Infer(json_format.Parse(sent, InferRequest()))


def test_with_a_token_the_lines_name_a_variable_and_never_the_token(browser: Browser, tmp_path: Path) -> None:
    token, line = new_token("line-lead", [Scope.INFER, Scope.MANAGE])
    (tmp_path / "tokens").write_text(f"{line}\n")
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "plain.png").write_bytes(gray_png(ANOMALOUS))
    with (
        running_server(auth_tokens=tmp_path / "tokens") as server,
        watched_tab(browser, server.http_url) as tab,
    ):
        page = _with_reference(tab, server, token)
        for language, program in (("curl", ["sh", "-c"]), ("Python", [sys.executable, "-c"])):
            text = copied(page, language)
            assert token not in text
            assert "nomalous" in run([*program, text], tmp_path, PATCHSERVE_TOKEN=token)
        assert '-H "authorization: Bearer $PATCHSERVE_TOKEN"' in copied(page, "grpcurl")


def _with_reference(tab: Tab, server: RunningServer, token: str) -> Page:
    page = tab.open()
    page.get_by_label("Your token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Name of the reference").fill("gray")
    page.locator("#reference-images").set_input_files([gray_file(100)])
    page.get_by_role("button", name="Build the reference").click()
    inspect(page, gray_file(ANOMALOUS, "plain.png"))
    return page
