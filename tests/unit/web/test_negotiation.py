"""Who gets the page at `/`, and who JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from patchserve_server.web.negotiation import prefers_html, quality_of

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def request(*accept: str) -> Request:
    headers = [(b"accept", each.encode()) for each in accept]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


@pytest.mark.parametrize(
    "accept", [CHROMIUM, FIREFOX, "text/html", "TEXT/HTML", "text/*", "text/html;q=0.2, */*;q=0.1"]
)
def test_browsers_get_the_page(accept: str) -> None:
    assert prefers_html(request(accept))


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",  # curl, requests
        "",
        "application/json",
        "application/json, text/plain, */*",
        "text/html, application/json",  # both alike
        "text/html;q=0.9, application/json",
        "text/html;q=0, */*;q=0.1",
        "text/html;level=1;q=0.3, application/*;q=0.4",
        "image/png",
        ";;;,,,q=1",
    ],
)
def test_other_callers_get_json(accept: str) -> None:
    assert not prefers_html(request(accept))


def test_a_caller_without_the_header_gets_json() -> None:
    assert not prefers_html(request())


def test_several_headers_count_as_one() -> None:
    assert prefers_html(request("application/json;q=0.5", "text/html"))


@pytest.mark.parametrize(
    ("accept", "quality"),
    [
        ("text/html;q=0.3, text/*;q=0.7, */*", 0.3),  # the most specific range counts, not the best
        ("text/*;q=0.7, */*", 0.7),
        ("*/*;q=0.125", 0.125),
        ("text/html; charset=utf-8 ; Q=0.4", 0.4),
        ("application/json", 0.0),
        ("text/html;q=0.000", 0.0),
        ("text/html;q=1.000", 1.0),
    ],
)
def test_the_most_specific_range_says_the_quality(accept: str, quality: float) -> None:
    assert quality_of("text/html", accept) == quality


def test_of_very_many_ranges_the_first_ones_count() -> None:
    assert quality_of("text/html", "image/png," * 63 + "text/html") == 1
    assert quality_of("text/html", "image/png," * 64 + "text/html") == 0


@given(
    st.text() | st.lists(st.sampled_from(["text/html", "*/*", ";q=", ",", "1", "0.5", "nan", " ", "2e9"])).map("".join)
)
def test_any_header_has_a_quality_from_0_to_1(accept: str) -> None:
    assert 0 <= quality_of("text/html", accept) <= 1
