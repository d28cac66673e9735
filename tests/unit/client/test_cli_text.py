"""Text that leaves the command: names that a terminal must not obey or cannot show, and the words of the shell."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png, reference
from fakes.terminal import Run, command
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import service_pb2, stream_pb2
from patchserve_client._counted import counted
from patchserve_client.cli._text import escaped, width_of
from patchserve_client.cli._wording import in_shell_words

NAMES = {
    b"1 new\nline.png": r"1 new\nline.png",
    b"2 esc\x1b[31m.png": r"2 esc\x1b[31m.png",
    b"3 bytes\xff\xfe.png": r"3 bytes\xff\xfe.png",
    "4 bidi\u202egnp.png".encode(): r"4 bidi\u202egnp.png",
    "5 line\u2028.png".encode(): r"5 line\u2028.png",
    "6 ü日本.png".encode(): "6 ü日本.png",
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with an image for each of NAMES."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(png("blue"))
    return folder


def test_each_name_of_a_file_takes_one_line_without_control_characters(run: Run, odd: Path) -> None:
    for arguments in (["infer", odd], ["stream", odd]):
        code, stdout, stderr = run(*arguments)
        assert (code, stderr) == (0, "")
        lines = stdout.splitlines()
        assert len(lines) == len(NAMES) + 2
        assert len({line.index(" intact ") for line in lines[1:-2]}) == 1  # aligned; the last name has wide characters
        if arguments[0] == "infer":
            assert [line.partition("  ")[0] for line in lines[1:-1]] == [f"{odd}/{shown}" for shown in NAMES.values()]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_names_that_the_locale_cannot_encode_are_escaped(
    fake: FakeServer, odd: Path, environment: dict[str, str]
) -> None:
    for arguments in (["infer", odd], ["infer", odd, "--output=json"], ["stream", odd], ["infer", odd / "nö\nne.png"]):
        done = subprocess.run(
            command(*arguments, "--server", fake.address),
            capture_output=True,
            env={**os.environ, **environment},
            check=False,
        )
        assert done.returncode == (2 if "nö\nne.png" in str(arguments[1]) else 0), done.stderr
        assert b"Traceback" not in done.stderr
        assert b"\x1b" not in done.stdout + done.stderr


def test_text_of_a_server_is_escaped_where_it_leaves(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.references["a\x1b[2J\nb"] = reference("a\x1b[2J\nb", 1)
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_REFERENCE_CHANGED, message="New\x1b[2J.")]
    assert r"a\x1b[2J\nb" in run("reference", "list")[1]
    assert r"New\x1b[2J." in run("stream", folder)[2]
    fake.fail("GetServerInfo", Fault(StatusCode.INTERNAL, "Bad\x1b[2J\nthing.", "INTERNAL"))
    assert run("info")[2] == "Error: Bad\\x1b[2J thing. (INTERNAL, INTERNAL)\n"


def test_json_keeps_every_name(run: Run, odd: Path) -> None:
    results = json.loads(run("infer", odd, "--output=json")[1])["results"]
    assert [os.fsencode(Path(result["file"]).name) for result in results] == list(NAMES)


@given(st.text(st.characters()), st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252", "cp932"]))
def test_escaped_text_is_one_line_that_the_encoding_can_write(text: str, encoding: str) -> None:
    shown = escaped(text, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    shown.encode(encoding)
    assert len(shown.splitlines()) <= 1
    assert not any(char < " " or char == "\x7f" for char in shown)


@given(st.text(st.sampled_from("aé ·日-_.") | st.characters(categories=["Ll", "Lu", "Nd"])))
def test_harmless_text_is_not_changed(text: str) -> None:
    assert escaped(text, io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) == text


def test_wide_and_combining_characters_are_measured_in_columns() -> None:
    assert [width_of(text) for text in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(2, "patch", "patches") == "2 patches"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('Load "belt" with LoadReference first.', 'Load "belt" with `patchserve reference load` first.'),
        ("ListReferences lists what exists.", "`patchserve reference list` lists what exists."),
        ('"REPLACE" has a profile that APPEND cannot change.', '"REPLACE" has a profile that --append cannot change.'),
        ("Load the reference again with REPLACE.", "Load the reference again without --append."),
        ("overlay_max_side_px must be 16 to 65535.", "--overlay-max-side must be 16 to 65535."),
        ("No answer before the deadline; `timeout_s` sets it.", "No answer before the deadline; --timeout sets it."),
        ("longer_side_px of input is 1; up to 9 with tile_px.", "--input is 1; up to 9 with --tile-px."),
        ("coreset cannot be combined.", "--coreset-ratio and --coreset-max-patches cannot be combined."),
        ("A coreset makes the bank smaller.", "A coreset makes the bank smaller."),
        ("tile_overlap of input is 0 to 0.5.", "--tile-overlap is 0 to 0.5."),
        ("A replacement of INFERENCE is no Inference.", "A replacement of INFERENCE is no Inference."),
    ],
)
def test_messages_use_the_words_of_the_shell_and_keep_names(message: str, shown: str) -> None:
    assert in_shell_words(message) == shown


def test_every_method_of_the_contract_has_words_of_the_shell() -> None:
    methods = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"].methods_by_name
    for method in methods:
        assert in_shell_words(f"{method} is a method.").startswith("`patchserve "), method
