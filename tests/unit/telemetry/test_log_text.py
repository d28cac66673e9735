"""Whatever a caller sends, a line of the log stays one line, and a terminal obeys nothing in it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.telemetry.log_text import MAX_EXCEPTION, MAX_TEXT, harmless, one_line, traceback_lines

DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text())
def test_no_text_has_a_line_break_or_a_character_that_shows_nothing(text: str) -> None:
    written = one_line(text)
    assert len(written.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in written} & DANGEROUS


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=MAX_TEXT))
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("invoice\u202egnp.exe", r"invoice\u202egnp.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("\u2028", r"\u2028"),
        ("\udcff", r"\udcff"),
        ("\x00", r"\x00"),
        ("Prüfling 7.png", "Prüfling 7.png"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_an_escape(text: str, written: str) -> None:
    assert one_line(text) == written


def test_a_long_text_is_cut_and_says_so() -> None:
    written = one_line("a" * 10_000_000)
    assert written == "a" * MAX_TEXT + "... and 9999000 more characters"


def test_numbers_stay_numbers_bytes_are_counted_and_everything_else_becomes_text() -> None:
    class Name:
        def __str__(self) -> str:
            return "a\nb"

    values = [1, 1.5, True, None, "a", b"\x89PNG", Name(), ("a", "\x1b"), float("nan")]
    written = [1, 1.5, True, None, "a", "4 bytes", r"a\nb", r"('a', '\x1b')", "nan"]
    assert [harmless(value) for value in values] == written


def test_a_traceback_keeps_its_lines_and_none_begins_like_a_line_of_the_log() -> None:
    written = traceback_lines("Traceback:\n  ValueError: \x1b[2J\n2026-01-01 forged\n", indent="    ")
    assert written.split("\n") == ["    Traceback:", r"      ValueError: \x1b[2J", "    2026-01-01 forged"]
    assert len(traceback_lines("a\n" * MAX_EXCEPTION, indent="")) < 2 * MAX_EXCEPTION
