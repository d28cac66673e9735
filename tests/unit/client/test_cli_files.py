"""What can be written on a command line for files: folders, patterns, standard input, links, `~`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path, PurePath

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import png
from fakes.terminal import Run, command, rows
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client.cli._image_files import STDIN, images_in, named_images
from patchserve_client.cli._overlay_names import OverlayNames, overlay_paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images in sub-folders, with equal names."""
    root = tmp_path / "tree"
    for name in ("frame 10.png", "frame 2.png", "day 1/frame 1.png", "day 1/deep/frame 1.png", "day 2/frame 1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png("blue"))
    return root


def test_a_folder_stands_for_its_sub_folders_in_natural_order(run: Run, tree: Path) -> None:
    code, stdout, _ = run("infer", tree, "--output=json")
    assert code == 0
    files = [Path(result["file"]).relative_to(tree).as_posix() for result in json.loads(stdout)["results"]]
    assert files == [
        "day 1/deep/frame 1.png", "day 1/frame 1.png", "day 2/frame 1.png", "frame 2.png", "frame 10.png",
    ]  # fmt: skip


def test_overlays_keep_the_sub_folders(run: Run, tree: Path, tmp_path: Path) -> None:
    code, stdout, _ = run("infer", tree, "--out", tmp_path / "out")
    assert code == 0
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {
        "day 1/deep/frame 1_overlay.png",
        "day 1/frame 1_overlay.png",
        "day 2/frame 1_overlay.png",
        "frame 2_overlay.png",
        "frame 10_overlay.png",
    }
    assert "  day 1/deep/frame 1_overlay.png\n" in stdout


@pytest.mark.parametrize("command_name", ["infer", "stream"])
def test_what_the_command_writes_below_the_folder_is_not_inspected(run: Run, tree: Path, command_name: str) -> None:
    for _ in range(2):
        code, stdout, _ = run(command_name, tree, "--out", tree / "overlays", "--save-anomalies", tree / "found")
        assert code == 0
        assert ": 5 intact" in stdout
    assert len(list((tree / "overlays").rglob("*.png"))) == 5


def test_links_to_the_same_file_are_files_of_their_own(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "original.png").write_bytes(png())
    for number in range(30):
        (tmp_path / "set" / f"{number}.png").symlink_to(tmp_path / "original.png")
    assert run("reference", "load", tmp_path / "set")[1].startswith("Loaded default: 30 images")
    assert ": 30 intact" in run("infer", tmp_path / "set")[1]


def test_the_same_path_counts_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert len(images_in([".", tree, "frame 2.png", "./frame 2.png", str(tree / "day 1")])) == 5


def test_a_pattern_in_quotes_is_expanded(run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert [row[0] + " " + row[1] for row in rows(run("infer", "frame*.png")[1])[1:-1]] == [
        "frame 2.png",
        "frame 10.png",
    ]
    assert len(images_in(["**/frame 1.png"])) == 3
    (tree / "frame [1].png").write_bytes(png())  # a name with signs of a pattern is itself
    assert images_in(["frame [1].png"]) == [Path("frame [1].png")]


def test_a_dash_is_an_image_from_standard_input(fake: FakeServer, tmp_path: Path) -> None:
    arguments = command("infer", "-", "--server", fake.address, "--out", tmp_path / "out", "--output=json")
    done = subprocess.run(arguments, input=png("red"), capture_output=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert (result["file"], result["verdict"]) == ("-", "anomalous")
    assert (tmp_path / "out" / "stdin_overlay.png").is_file()
    arguments = command("reference", "load", "-", "--skip-bad", "--server", fake.address)
    done = subprocess.run(arguments, input=png(), capture_output=True, check=True)
    assert done.stdout.startswith(b"Loaded default: 1 image")


def test_a_file_with_the_name_of_standard_input_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(png())
    assert images_in(["./-"]) == [tmp_path / "-"]
    assert images_in(["-"]) == [STDIN]


def test_overlays_with_the_same_name_get_a_number_also_where_case_is_ignored(tmp_path: Path) -> None:
    for name in ("one/x.png", "one/X.bmp", "two/x.png", "four/sub/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = named_images([tmp_path / "one", tmp_path / "two/x.png", tmp_path / "four"])
    paths = overlay_paths(names, Path("out"), ".png").values()
    assert [path.as_posix() for path in paths] == [
        "out/one/X_overlay.png",
        "out/one/x_2_overlay.png",
        "out/two/x_overlay.png",
        "out/four/sub/x_overlay.png",
    ]


@given(
    st.lists(st.sampled_from(["x.png", "X.bmp", "x_2.png", "x_2_2.png", "x_3", "a/x.png", "a/x_2.png"]), max_size=12)
)
def test_no_overlay_overwrites_another(images: list[str]) -> None:
    names = OverlayNames(Path("out"), ".png")
    paths = [names.path_of(PurePath(image)).as_posix().casefold() for image in images]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["tree/day 1", "tree/day 2"], ["day 1/deep/frame 1.png", "day 1/frame 1.png", "day 2/frame 1.png"]),
        (["tree/day */frame 1.png"], ["day 1/frame 1.png", "day 2/frame 1.png"]),
        (["tree/day 2", "tree/frame 2.png"], ["day 2/frame 1.png", "frame 2.png"]),
        (["tree/day 1/deep"], ["frame 1.png"]),
        (["tree/day 1", "tree/day 1/deep"], ["deep/frame 1.png", "frame 1.png"]),
        (["tree/frame 2.png", "-"], ["frame 2.png", "stdin"]),
    ],
)
def test_names_begin_below_the_folder_that_all_arguments_have_in_common(
    tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tree.parent)
    assert [name.as_posix() for name in named_images(arguments).values()] == names


@pytest.mark.parametrize("option", ["--out", "--save-anomalies"])
@pytest.mark.parametrize("arguments", [["infer"], ["stream"], ["stream", "--watch"]])
def test_the_inspected_folder_is_not_written_to(run: Run, tree: Path, option: str, arguments: list[str]) -> None:
    before = sorted(tree.rglob("*"))
    code, _, stderr = run(*arguments, tree, option, tree)
    assert code == 2
    assert "must not be the inspected folder" in stderr
    assert sorted(tree.rglob("*")) == before


def test_a_video_is_for_stream(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "belt.MP4").write_bytes(b"frames")
    code, _, stderr = run("infer", tmp_path / "belt.MP4")
    assert code == 2
    assert "belt.MP4 is a video. Inspect it with `patchserve stream`." in stderr
    assert not fake.requests["Infer"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer", "~/set/a.png", "--out=~/out"],
        ["infer", "~/set", "--out=~/out", "--results=~/out/results.csv"],
        ["infer", "~/set", "--save-anomalies=~/out"],
        ["stream", "~/set", "--out=~/out"],
        ["info", "--token-file=~/token"],
        ["reference", "load", "~/set/*.png"],
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/set").mkdir(parents=True)
    (tmp_path / "home/set/a.png").write_bytes(png("red"))
    (tmp_path / "home/token").write_text("s3cret")
    assert run(*arguments)[0] == 0
    assert not (tmp_path / "~").exists()
    if any("~/out" in argument for argument in arguments):
        assert list((tmp_path / "home/out").rglob("*"))


def test_a_tilde_in_a_variable_is_the_home_folder(
    run: Run, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("from-home")
    monkeypatch.setenv("PATCHSERVE_TOKEN_FILE", "~/token")
    assert run("info")[0] == 0
    assert fake.metadata[-1]["authorization"] == "Bearer from-home"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["infer", "a.png", "--out", "a.png"], 2, "a.png is a file, not a folder."),
        (["infer", "a.png", "--out", "a.png/x"], 1, "a.png/x: Not a directory"),
        (["infer", "a.png", "nothing.png"], 2, "There is no file or folder nothing.png."),
        (["infer", "empty"], 2, "There are no images in empty"),
        (["infer", ""], 2, "A path is empty."),
        (["infer", "a.png", "--out", ""], 2, "Invalid value for '--out': A path is empty."),
        (["info", "--ca", "empty"], 2, "empty is a folder, not a file."),
        (["evaluate", "a.png"], 2, "a.png is not a folder."),
        (["evaluate", "nothing"], 2, "There is no folder nothing."),
    ],
)
def test_a_path_of_the_wrong_kind_is_named(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, *, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    actual, stdout, stderr = run(*arguments)
    assert (actual, stdout) == (code, "")
    assert says in stderr


def test_a_reader_that_closes_the_output_ends_the_command_without_a_word(fake: FakeServer, folder: Path) -> None:
    process = subprocess.Popen(
        command("infer", folder, "--server", fake.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 1
    process.stderr.close()


@pytest.mark.parametrize(
    "words", [("reference", "export", "belt", "-"), ("stream", "tree", "--annotated-video", "-")], ids=" ".join
)
def test_no_file_gets_the_name_that_elsewhere_is_standard_input(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tree.parent)
    code, _, stderr = run(*words)
    assert (code, "name a file" in stderr) == (2, True)
    assert not (tree.parent / "-").exists()
