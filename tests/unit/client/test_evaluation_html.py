"""The report as one HTML file: whatever a name holds, it stays text, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_client import AnomalyScore, Timing
from patchserve_client._plain_text import one_line
from patchserve_client.evaluation import LabeledImage, Page, Verdict, VerdictPicture
from patchserve_client.evaluation.html_page import Cell, Plot, Row, Table

WRITTEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "' onload='alert(1)",
    "</title></style></table><h1>x",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&amp;.png",
    "a\x00b\x1b[31m\u202egpj.exe",
    "caf\udce9.png",  # bytes that are no UTF-8
    "javascript:alert(1)",
    "--><!--",
]


class Parsed(HTMLParser):
    """The tags, the attributes and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._is_style = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        self._is_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def handle_data(self, data: str) -> None:
        if not self._is_style and data.strip():
            self.texts.append(data.strip())


def page(name: str, *, pictures: int = 1) -> Page:
    """A page with the name wherever a name can be."""
    image = LabeledImage(Path("x.png"), name, name, Path("mask.png"), (40, 30))
    verdict = Verdict(image, AnomalyScore(0.4, 8, 10, is_anomalous=False, anomalous_area_percentage=0), 0)
    picture = VerdictPicture(
        verdict, Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue"), Timing(0, 0, 0, 0, 0, 0)
    )
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    return Page(
        title=name,
        facts=[name],
        conclusion=[name],
        command=name,
        tables=[Table(name, ["what", "value"], [Row([Cell(name), Cell("0.5", name)], "chosen")], note=name)],
        plots=[Plot(png.getvalue(), name)],
        pictures_title=name,
        pictures=[picture] * pictures,
        notes=[name],
    )


PLAIN = Parsed(page("plain").html(WRITTEN))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text_in_every_place(name: str) -> None:
    html = page(name).html(WRITTEN)
    found = Parsed(html)
    assert found.tags == PLAIN.tags
    assert [key for key, _ in found.attributes] == [key for key, _ in PLAIN.attributes]
    shown = one_line(name)
    assert len([text for text in found.texts if text == shown]) == len([one for one in PLAIN.texts if one == "plain"])
    assert html.encode()  # can be written
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)


@settings(max_examples=100)
@given(st.text(min_size=1).filter(str.strip))
def test_any_name_stays_text(name: str) -> None:
    found = Parsed(page(name, pictures=0).html(WRITTEN))
    assert found.tags == Parsed(page("plain", pictures=0).html(WRITTEN)).tags
    assert one_line(name).strip() in found.texts


def test_the_file_loads_nothing_and_runs_nothing() -> None:
    html = page("plain").html(WRITTEN)
    assert "script" not in PLAIN.tags
    assert "link" not in PLAIN.tags
    sources = [value or "" for key, value in PLAIN.attributes if key in {"src", "href", "srcset", "action"}]
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", html)
    (policy,) = [value for key, value in PLAIN.attributes if key == "content" and value and "default-src" in value]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_are_inside_and_have_texts_for_those_who_cannot_see_them() -> None:
    images = [value for key, value in PLAIN.attributes if key == "src"]
    decoded = [Image.open(io.BytesIO(base64.b64decode((uri or "").partition(",")[2]))) for uri in images]
    assert [image.size for image in decoded] == [(4, 4), (40, 30), (40, 30)]
    assert [value for key, value in PLAIN.attributes if key == "alt"] == [
        "plain",
        "The image plain, defective (plain). The damage is outlined in white.",
        "Its heat map: 0.80 x of the threshold.",
    ]


def test_tables_have_headers_and_the_page_has_a_language_and_one_title() -> None:
    assert ("lang", "en") in PLAIN.attributes
    assert PLAIN.tags.count("h1") == PLAIN.tags.count("main") == 1
    assert [value for key, value in PLAIN.attributes if key == "scope"] == ["col", "col", "row"]


def test_the_page_reads_from_the_conclusion_to_the_notes() -> None:
    parsed = Parsed(
        Page(
            "Title", ["fact"], ["Use it."], "patchserve reference load x", [Table("All", ["#"], [Row.of("1")], "note")],
            [], "", [], ["a note"],
        ).html(WRITTEN)
    )  # fmt: skip
    assert parsed.texts == [
        "Title",
        "Title",
        "fact",
        "Use it.",
        "patchserve reference load x",
        "All",
        "#",
        "1",
        "note",
        "Notes",
        "a note",
        "Written by",
        "patchserve evaluate",
        "on 2026-01-02 03:04. This file loads nothing from elsewhere.",
    ]


@pytest.mark.parametrize(
    ("text", "is_number"),
    [("0.955", True), ("-", True), ("all", True), ("3.3 %", True), ("0.4 to 11.5 %", True), ("2 of 3", False)],
)
def test_numbers_are_on_the_right(text: str, is_number: bool) -> None:
    assert Cell(text).is_number == is_number
