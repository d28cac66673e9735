"""The command lines of the clients in other languages behave the same, with TLS and a token."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.guarded import Guarded, guarded
from conformance.images import write_images
from conformance.languages import LANGUAGES, Language
from PIL import Image

WITH_COMMANDS = [language for language in LANGUAGES if language.command]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to load in `good`, images to inspect in `new`."""
    path = tmp_path_factory.mktemp("images")
    for part in ("good", "new"):
        (path / part).mkdir()
    write_images(path)
    for number in range(4):
        shutil.copy(path / f"card-{number}.jpg", path / "good")
    for name in ("intact.jpg", "cut.jpg", "scratched.jpg", "note.txt"):
        shutil.copy(path / name, path / "new")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture(params=WITH_COMMANDS, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    if not chosen.is_built:
        pytest.skip(f"the client in {chosen.name} is not built: make test-clients")
    return chosen


def run(language: Language, command: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    assert language.command is not None
    line = [*language.command, command, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_load_infer_and_stream(language: Language, server: Guarded, folder: Path, tmp_path: Path) -> None:
    way = ("--server", server.address, *server.flags, "--token", server.tokens["both"], "--reference", language.name)
    code, out, err = run(language, "load", *way, folder / "good")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{language.name}: 4 images, revision [0-9a-f]{{64}}\n", out)

    image, overlay = folder / "new" / "scratched.jpg", tmp_path / "overlay.png"
    code, out, err = run(language, "infer", *way, "--overlay", overlay, image)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(image))}: (anomalous|intact) \d\.\d\d x\n", out)
    with Image.open(overlay) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (320, 240))

    code, out, err = run(language, "stream", *way, "--overlay", tmp_path, folder / "new")
    assert (code, err) == (0, "")
    cut, intact, scratched = out.splitlines()
    assert cut.startswith("cut.jpg: INVALID_ARGUMENT UNDECODABLE_IMAGE: ")
    assert intact.startswith("intact.jpg: ")
    assert scratched.startswith("scratched.jpg: ")
    assert {path.name for path in tmp_path.glob("*.jpg.png")} == {"intact.jpg.png", "scratched.jpg.png"}


def test_an_error_is_one_line_with_code_and_reason(language: Language, server: Guarded, folder: Path) -> None:
    image = folder / "new" / "intact.jpg"
    way = ("--server", server.address, *server.flags, "--reference", "nobody")
    code, out, err = run(language, "infer", *way, "--token", server.tokens["infer"], image)
    assert (code, out) == (1, "")
    assert err.startswith("NOT_FOUND REFERENCE_NOT_FOUND: ")
    code, _, err = run(language, "load", *way, "--token", server.tokens["infer"], folder / "good")
    assert code == 1
    assert err.startswith("PERMISSION_DENIED SCOPE_MISSING: ")


def test_a_token_is_not_sent_unencrypted_to_another_machine(language: Language, folder: Path) -> None:
    image = folder / "new" / "intact.jpg"
    code, _, err = run(language, "infer", "--server", "camera.invalid:50051", "--token", "secret", image)
    assert code == 1
    assert "unencrypted" in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_a_missing_file_is_named(language: Language, server: Guarded) -> None:
    code, _, err = run(language, "infer", "--server", server.address, *server.flags, "no-such.jpg")
    assert code == 1
    assert "no-such.jpg" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["infer", "--help"]])
def test_help_is_printed_on_standard_output(language: Language, arguments: list[str]) -> None:
    code, out, err = run(language, *arguments)
    assert (code, err) == (0, "")
    assert "infer" in out


@pytest.mark.parametrize(
    "arguments", [["infer", "--nonsense", "x"], ["nonsense"], ["infer", "--timeout", "soon", "x"], ["infer"]]
)
def test_wrong_usage_is_explained_without_a_stack_trace(language: Language, arguments: list[str]) -> None:
    code, out, err = run(language, *arguments)
    assert (code, out) == (2, "")
    assert err
    assert not re.search(r"^\s+at |goroutine|terminate called", err, re.MULTILINE)
