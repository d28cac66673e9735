"""Signing in with a token, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser.screens import ANOMALOUS, gray_file, inspect, width_beyond_the_window
from browser.tabs import PHONE, Tab, watched_tab
from e2e.harness import MESSAGE_OPTIONS, Stub
from e2e.in_process import RunningServer, running_server
from fakes.gray import gray_png
from grpc import access_token_call_credentials, composite_channel_credentials, local_channel_credentials, secure_channel
from playwright.sync_api import Browser, Page, expect

from patchserve.v1.reference_pb2 import LoadReferenceRequest
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope


@dataclass(frozen=True)
class Guarded:
    """A server that needs tokens, with the reference `gray`."""

    server: RunningServer
    manage: str  # a token with all scopes
    infer: str  # one that only inspects
    only_manage: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    manage, manage_line = new_token("line-lead", [Scope.INFER, Scope.MANAGE])
    infer, infer_line = new_token("camera-7", [Scope.INFER])
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    only_manage, only_manage_line = new_token("loader", [Scope.MANAGE])
    file.write_text(f"{manage_line}\n{infer_line}\n{only_manage_line}\n")
    Path(file).chmod(0o600)
    with running_server(auth_tokens=file) as server:
        credentials = composite_channel_credentials(local_channel_credentials(), access_token_call_credentials(manage))
        with secure_channel(server.address, credentials, MESSAGE_OPTIONS) as channel:
            Stub(channel).LoadReference(LoadReferenceRequest(reference_id="gray", images=[gray_png(100)]))
        yield Guarded(server, manage, infer, only_manage)


@pytest.fixture
def tab(browser: Browser, guarded: Guarded) -> Iterator[Tab]:
    with watched_tab(browser, guarded.server.http_url) as watched:
        yield watched


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Your token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_on_a_phone_the_verdict_of_somebody_who_signed_in_is_below_the_navigation(
    browser: Browser, guarded: Guarded
) -> None:
    with watched_tab(browser, guarded.server.http_url, **PHONE) as tab:
        page = tab.open("try/gray")
        sign_in(page, guarded.manage)
        inspect(page, gray_file(ANOMALOUS))
        expect(page.get_by_role("heading", name=re.compile("Anomalous: "))).to_be_in_viewport(ratio=1)
        bottom = page.get_by_role("navigation").evaluate("node => node.getBoundingClientRect().bottom")
        assert bottom <= page.locator(".result-name").evaluate("node => node.getBoundingClientRect().top")
        assert width_beyond_the_window(page) == 0


def test_a_wrong_token_is_told_and_the_right_one_opens_the_page_until_sign_out(tab: Tab, guarded: Guarded) -> None:
    tab.expected.add("status of 401")
    page = tab.open()
    expect(page.get_by_label("Your token")).to_be_focused()
    sign_in(page, "patchserve_wrong")
    expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
    sign_in(page, guarded.manage)
    expect(page.get_by_label("Compare with the reference")).to_have_value("gray")
    page.reload()  # the session goes on
    expect(page.get_by_label("Compare with the reference")).to_have_value("gray")
    assert guarded.manage not in str(
        page.evaluate("JSON.stringify([document.cookie, {...localStorage}, location.href])")
    )
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your token")).to_be_visible()


def test_what_a_token_does_not_allow_is_disabled_with_the_reason(tab: Tab, guarded: Guarded) -> None:
    page = tab.open("reference/gray")
    sign_in(page, guarded.infer)
    for name in ("Add images", "Replace all", "Delete"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    expect(page.get_by_label("Sensitivity", exact=True)).to_be_disabled()
    expect(page.get_by_text("Your token does not allow changes: it lacks the scope “manage”.")).to_be_visible()
    page.get_by_role("link", name="Try it").click()
    expect(page.get_by_role("button", name="New reference")).to_be_disabled()
    expect(page.get_by_text("camera-7: infer")).to_be_visible()


def test_a_token_that_no_longer_counts_is_asked_for_again(tab: Tab, guarded: Guarded) -> None:
    tab.expected.add("status of 401")
    page = tab.open()
    sign_in(page, guarded.manage)
    expect(page.get_by_label("Compare with the reference")).to_be_visible()
    page.context.clear_cookies()
    page.get_by_role("link", name="Reference", exact=True).click()
    expect(page.get_by_label("Your token")).to_be_visible()
    sign_in(page, guarded.manage)
    expect(page.get_by_role("heading", name="1 image")).to_be_visible()


def test_a_token_that_cannot_use_the_page_can_be_exchanged(tab: Tab, guarded: Guarded) -> None:
    tab.expected.add("status of 403")
    page = tab.open()
    sign_in(page, guarded.only_manage)
    expect(page.get_by_role("alert").filter(has_text="infer")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, guarded.infer)
    expect(page.get_by_label("Compare with the reference")).to_have_value("gray")
