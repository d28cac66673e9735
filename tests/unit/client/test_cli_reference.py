"""`patchserve reference` against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png, reference
from fakes.terminal import Run, rows

from patchserve.v1 import reference_pb2


def test_a_reference_is_loaded_listed_shown_and_deleted(run: Run, fake: FakeServer, folder: Path) -> None:
    assert "has no references" in run("reference", "list")[1]
    options = ["--id", "belt", "--profile", "paper", "--coreset-max-patches", 99]
    code, stdout, _ = run("reference", "load", folder, folder / "a.png", *options)
    assert code == 0
    assert stdout.startswith("Loaded belt: 3 images, 2352 patches, input 224 x 224 px, raw threshold 10.5, revision ")
    (request,) = fake.requests["LoadReference"]
    assert request.profile == reference_pb2.SCORING_PROFILE_PAPER
    assert request.coreset.max_patches == 99
    assert list(request.image_names) == ["a.png", "b.png", "c.png"]
    assert run("reference", "load", folder / "a.png", "--id", "belt", "--append")[1].startswith("Loaded belt: 4 image")

    fake.references["a-very-long-name-" * 3] = reference("a-very-long-name-" * 3, 12)
    code, stdout, _ = run("reference", "list")
    assert [row[0] for row in rows(stdout)] == ["id", "a-very-long-name-" * 3, "belt"]
    assert [row["reference_id"] for row in json.loads(run("reference", "list", "--output=json")[1])] == [
        "a-very-long-name-" * 3,
        "belt",
    ]
    shown_text = run("reference", "show", "belt")[1]
    assert "calibration.method          leave_one_out" in shown_text
    assert "\ncost " not in shown_text  # only a load measures it
    shown = json.loads(run("reference", "show", "belt", "--output=json")[1])
    assert shown["calibration"]["normal_scores"]["count"] == 4
    assert shown["create_time"] == "2025-01-02T03:04:05+00:00"

    assert run("reference", "delete", "belt")[0] == 0
    code, _, stderr = run("reference", "delete", "belt")
    assert code == 1
    assert stderr.startswith('Error: There is no reference "belt". (NOT_FOUND, REFERENCE_NOT_FOUND) ')
    assert "`patchserve reference load`" in stderr


def test_a_subspace_has_vectors_and_no_patches(run: Run, folder: Path) -> None:
    load = ["reference", "load", folder / "a.png", "--profile", "subspace"]
    assert run(*load)[1].startswith("Loaded default: 1 image, 784 vectors, ")


def test_a_rejected_image_of_a_load_is_named(run: Run, fake: FakeServer, folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no image")
    code, stdout, stderr = run("reference", "load", folder)
    assert (code, stdout) == (1, "")
    assert stderr == f"Error: {folder / 'b.png'}: The bytes are not an image. Nothing was loaded. (UNDECODABLE_IMAGE)\n"
    assert not fake.references


def test_skip_bad_loads_the_others_and_says_which_were_left_out_and_why(
    run: Run, fake: FakeServer, folder: Path
) -> None:
    (folder / "b.png").write_bytes(b"no image")
    (folder / "d.png").write_bytes(b"")
    (folder / "e.png").symlink_to("/proc/self/mem")  # exists, but cannot be read
    code, stdout, stderr = run("reference", "load", folder, "--id", "belt", "--skip-bad")
    assert code == 0
    assert stderr.splitlines()[:-1] == [
        f"Skipped {folder / 'e.png'}: Input/output error",
        f"Skipped {folder / 'b.png'}: The bytes are not an image.",
        f"Skipped {folder / 'd.png'}: The bytes are not an image.",
    ]
    assert stdout.startswith("Loaded belt: 2 images, ")
    assert stdout.splitlines()[0].endswith("; skipped 3 files")
    assert list(fake.requests["LoadReference"][-1].images) == [(folder / f"{name}.png").read_bytes() for name in "ac"]


def test_skip_bad_adds_each_image_once(run: Run, fake: FakeServer, folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no image")
    run("reference", "load", folder / "a.png")
    code, stdout, _ = run("reference", "load", folder, "--append", "--skip-bad", "--output=json")
    assert code == 0
    document = json.loads(stdout)
    assert document["reference"]["image_count"] == 1 + 2
    assert document["skipped"] == [
        {"file": str(folder / "b.png"), "reason": "UNDECODABLE_IMAGE", "message": "The bytes are not an image."}
    ]


def test_skip_bad_without_a_usable_file_loads_nothing(run: Run, fake: FakeServer, folder: Path) -> None:
    (folder / "a.png").write_bytes(b"no image")
    code, stdout, stderr = run("reference", "load", folder / "a.png", "--skip-bad")
    assert (code, stdout) == (1, "")
    assert stderr.endswith("Error: None of the files can be used. Nothing was loaded.\n")
    assert not fake.references


def test_skip_bad_does_not_hide_other_errors(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.fail("LoadReference", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "The disk is full.", "STORAGE_FULL"))
    code, _, stderr = run("reference", "load", folder, "--skip-bad")
    assert (code, stderr) == (1, "Error: The disk is full. (RESOURCE_EXHAUSTED, STORAGE_FULL)\n")


def test_a_reference_id_like_the_typed_one_is_suggested(run: Run, fake: FakeServer, folder: Path) -> None:
    fake.references["belt-7"] = reference("belt-7", 1)
    assert run("reference", "show", "belt7")[2].endswith('Did you mean "belt-7"?\n')
    assert "Did you mean" not in run("reference", "show", "something-else")[2]


def test_commands_that_change_references_print_json(run: Run, folder: Path) -> None:
    loaded = json.loads(run("reference", "load", folder / "a.png", "--id", "belt", "--output=json")[1])
    assert (loaded["reference"]["reference_id"], loaded["skipped"]) == ("belt", [])
    deleted = json.loads(run("reference", "delete", "belt", "--output=json")[1])
    assert deleted == {"reference_id": "belt", "revision": loaded["reference"]["revision"]}


def test_one_image_is_one_image(run: Run, folder: Path) -> None:
    loaded, cost = run("reference", "load", folder / "a.png")[1].splitlines()
    assert loaded.startswith("Loaded default: 1 image, ")
    assert cost == "Cost: 1600 patches an image, 74.0 MiB of memory in use, 40 ms an image"


@pytest.fixture
def run_reference(run: Run, tmp_path: Path) -> Run:
    """Runs `patchserve reference`; `load` loads one image."""
    image = tmp_path / "a.png"
    image.write_bytes(png())

    def invoke(command: str, *arguments: object) -> tuple[int, str, str]:
        images = [image] if command == "load" else []
        return run("reference", command, *images, *arguments)

    return invoke


def shown_facts(run_reference: Run) -> dict[str, str]:
    _, stdout, _ = run_reference("show")
    return dict(line.split(maxsplit=1) for line in stdout.splitlines())


def test_a_search_radius_and_regions_are_sent_and_shown(run_reference: Run, fake: FakeServer) -> None:
    belt, label = "0.1,0 0.9,0 0.9,1 0.1,1", "0,0\t0.25,0\n0,.5"
    assert run_reference("load", "--search-radius", 0.1, "--region", belt, "--region", label)[0] == 0
    (request,) = fake.requests["LoadReference"]
    assert request.search_radius == 0.1
    corners = [[(point.x, point.y) for point in polygon.points] for polygon in request.region_of_interest]
    assert corners == [[(0.1, 0), (0.9, 0), (0.9, 1), (0.1, 1)], [(0, 0), (0.25, 0), (0, 0.5)]]
    facts = shown_facts(run_reference)
    assert facts["search_radius"] == "0.1"
    assert facts["region_of_interest"] == "0.1,0.0 0.9,0.0 0.9,1.0 0.1,1.0; 0.0,0.0 0.25,0.0 0.0,0.5"
    document = json.loads(run_reference("show", "--output=json")[1])
    assert (document["search_radius"], len(document["region_of_interest"])) == (0.1, 2)
    assert document["region_of_interest"][1] == [[0, 0], [0.25, 0], [0, 0.5]]


def test_a_region_can_be_given_as_it_is_shown(run_reference: Run, fake: FakeServer) -> None:
    run_reference("load", "--region", "0.333333333333333315,0 1,1e-9 1,.7")
    assert run_reference("load", "--region", shown_facts(run_reference)["region_of_interest"])[0] == 0
    first, second = fake.requests["LoadReference"]
    assert second.region_of_interest == first.region_of_interest


def test_options_that_are_not_given_are_not_sent(run_reference: Run, fake: FakeServer) -> None:
    assert run_reference("load")[0] == 0
    (request,) = fake.requests["LoadReference"]
    assert not request.HasField("search_radius")
    assert not request.region_of_interest
    facts = shown_facts(run_reference)
    assert (facts["search_radius"], facts["region_of_interest"]) == ("-", "-")


def test_the_profile_of_the_shell_is_verdict_and_images_that_are_added_keep_theirs(
    run_reference: Run, fake: FakeServer
) -> None:
    for options in ([], ["--append"], ["--profile", "notebook"]):
        code, _, stderr = run_reference("load", *options)
        assert (code, stderr.startswith("Error")) == (0, False), stderr
    first, third = fake.requests["LoadReference"]
    (appended,) = fake.requests["LoadReferenceStream"]  # a load that must not be sent twice
    assert first.profile == reference_pb2.SCORING_PROFILE_VERDICT
    assert appended.profile == reference_pb2.SCORING_PROFILE_UNSPECIFIED
    assert third.profile == reference_pb2.SCORING_PROFILE_NOTEBOOK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "belt",
        "0.1,0 0.9,0",
        "0.1 0 0.9 0 0.9 1",
        "0.1,0,0 0.9,0,0 0.9,1,0",
        "0.1, 0 0.9, 0 0.9, 1",
        "0.1,0;0.9,0;0.9,1",
        "10,0 90,0 90,100",
        "-0.1,0 0.9,0 0.9,1",
        "nan,0 0.9,0 0.9,1",
    ],
)
def test_a_bad_region_is_rejected_with_what_is_allowed(run_reference: Run, fake: FakeServer, text: str) -> None:
    code, stdout, stderr = run_reference("load", "--region", "0,0 1,0 1,1", "--region", text)
    assert (code, stdout) == (2, "")
    allowed = 'three or more corners, each share 0 to 1, as in "0.1,0 0.9,0 0.9,1 0.1,1"'
    assert f"A --region must be {allowed}, not {text!r}." in stderr
    assert not fake.requests["LoadReference"]


def test_the_images_of_a_reference_are_shown(run_reference: Run, fake: FakeServer) -> None:
    run_reference("load")
    assert "images" not in shown_facts(run_reference) or shown_facts(run_reference)["images"] == "-"
    image = reference_pb2.ReferenceImage
    fake.images["default"] = [
        image(name="belt 1.jpg", media_type="image/jpeg", width_px=1001, height_px=712, size_bytes=84_000),
        image(name="\u202ebelt.jpg", media_type="image/jpeg", width_px=640, height_px=480, size_bytes=9_000),
        image(media_type="image/png", width_px=8, height_px=9, size_bytes=70),
        image(),
    ]
    _, stdout, _ = run_reference("show")
    facts, _, table = stdout.partition("\n\n")
    assert "2 JPEG of 640 x 480 to 1001 x 712 px, 1 PNG of 8 x 9 px, 1 unknown" in facts
    lines = table.splitlines()
    assert lines[0].split() == ["image", "format", "pixels", "bytes"]
    assert lines[1].split() == ["belt", "1.jpg", "JPEG", "1001", "x", "712", "84000"]
    assert "\u202e" not in stdout
    assert lines[3].split() == ["number", "3", "PNG", "8", "x", "9", "70"]
    assert lines[4].split() == ["number", "4", "unknown", "-", "-"]
    assert json.loads(run_reference("show", "--output=json")[1])["images"][0] == {
        "name": "belt 1.jpg",
        "media_type": "image/jpeg",
        "width_px": 1001,
        "height_px": 712,
        "size_bytes": 84_000,
    }


def test_a_reference_is_tuned_and_shows_its_sensitivity(run_reference: Run, fake: FakeServer) -> None:
    run_reference("load", "--sensitivity", 0.5)
    assert fake.requests["LoadReference"][0].sensitivity == 0.5
    code, stdout, _ = run_reference("tune", "default", "--sensitivity", 1.5)
    revision = fake.references["default"].revision[:12]
    assert (code, stdout) == (0, f"Tuned default: sensitivity 1.5, raw threshold 7, revision {revision}\n")
    assert shown_facts(run_reference)["sensitivity"] == "1.5"
    code, _, stderr = run_reference("tune", "nobody", "--sensitivity", 1.5)
    assert (code, "NOT_FOUND" in stderr) == (1, True)


def test_a_reference_is_restored_and_shows_what_is_kept(run: Run, fake: FakeServer) -> None:
    now, before = "1" * 64, "2" * 64
    fake.references["belt"] = reference("belt", 3, revision=now)
    assert "previous_revision           -\n" in run("reference", "show", "belt")[1]
    fake.references["belt"].previous_revision = before
    assert f"previous_revision           {before}\n" in run("reference", "show", "belt")[1]
    code, stdout, _ = run("reference", "restore", "belt")
    assert (code, stdout) == (
        0,
        "Restored belt: 3 images, sensitivity 1, raw threshold 10.5, revision 222222222222\n",
    )
    restored = json.loads(run("reference", "restore", "belt", "--output=json")[1])
    assert (restored["revision"], restored["previous_revision"]) == (now, before)
    code, _, stderr = run("reference", "restore", "nobody")
    assert (code, "NOT_FOUND" in stderr) == (1, True)


def test_the_beginning_of_a_revision_is_enough(run: Run, fake: FakeServer) -> None:
    now, before = "1" * 64, "2" * 64
    fake.references["belt"] = reference("belt", 3, revision=now)
    fake.references["belt"].previous_revision = before
    assert run("reference", "restore", "belt", "--revision", "22", "--expected-revision", "1111")[0] == 0
    (request,) = fake.requests["RestoreReference"]
    assert (request.revision, request.expected_revision) == (before, now)
    code, _, stderr = run("reference", "restore", "belt", "--revision", "33")
    assert code == 2
    assert "No revision of belt begins with 33: it is at 222222222222 and keeps 111111111111." in stderr
    fake.references["belt"].previous_revision = ""
    assert "and keeps no other" in run("reference", "restore", "belt", "--expected-revision", "1")[2]
    assert len(fake.requests["RestoreReference"]) == 1
    run("reference", "restore", "belt", "--revision", "3" * 64)
    assert fake.requests["RestoreReference"][1].revision == "3" * 64, "a whole one is for the server to judge"


def test_the_images_of_a_reference_are_written(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    fake.references["belt"] = reference("belt", 11)
    code, stdout, _ = run("reference", "images", "belt", "--out", tmp_path / "new")
    assert (code, stdout) == (0, f"Wrote 11 images of belt, revision abc123, to {tmp_path / 'new'}\n")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names[0] == "01_0.png"
    assert names[-1] == "11_10.png"
    assert (tmp_path / "new/01_0.png").read_bytes() == png(size=(4, 4))
    assert {request.expected_revision for request in fake.requests["GetReferenceImage"]} == {"abc123"}
    written = json.loads(run("reference", "images", "belt", "--out", tmp_path / "new", "--output=json")[1])
    assert written["files"][1] == str(tmp_path / "new/02_1.png")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("", "1.png"),
        ("belt.jpg", "1_belt.png"),
        ("../../etc/passwd", "1_passwd.png"),
        ("/", "1.png"),
        ("a b\u202e\n:*.jpg", "1_a_b____.png"),
        ("\u00fc" * 64, "1_" + "\u00fc" * 64 + ".png"),
        ("x" * 128, "1_" + "x" * 80 + ".png"),
        ("..", "1_...png"),
    ],
)
def test_the_name_of_an_image_never_leaves_the_folder(
    run: Run, fake: FakeServer, tmp_path: Path, name: str, file: str
) -> None:
    fake.references["belt"] = reference("belt", 1)
    fake.image_name = name
    assert run("reference", "images", "belt", "--out", tmp_path / "out")[0] == 0
    assert [path.name for path in tmp_path.rglob("*.png") if path.parent.name == "out"] == [file]


@pytest.mark.parametrize("arguments", [[], ["--sensitivity", "0"], ["--sensitivity", "11"], ["--sensitivity", "high"]])
def test_a_tune_needs_a_sensitivity_in_its_range(run_reference: Run, fake: FakeServer, arguments: list[object]) -> None:
    code, _, stderr = run_reference("tune", "default", *arguments)
    assert code == 2
    assert "--sensitivity" in stderr
    assert not fake.requests["TuneReference"]


@pytest.mark.parametrize("text", ["0", "-0.1", "1.1", "nan", "inf", "10%", ""])
def test_a_bad_search_radius_is_rejected_with_what_is_allowed(run_reference: Run, fake: FakeServer, text: str) -> None:
    code, stdout, stderr = run_reference("load", "--search-radius", text)
    assert (code, stdout) == (2, "")
    assert f"a share of the image's side, above 0 and at most 1, not {text!r}." in stderr
    assert not fake.requests["LoadReference"]


@pytest.mark.parametrize(("text", "rate"), [("2%", 0.02), ("0.02", 0.02), ("12.5%", 0.125), ("0.3 %", 0.003)])
def test_a_false_alarm_rate_is_sent_as_a_share(run_reference: Run, fake: FakeServer, text: str, rate: float) -> None:
    assert run_reference("load", "--false-alarms", text)[0] == 0
    assert fake.requests["LoadReference"][-1].false_alarm_rate == pytest.approx(rate)


@pytest.mark.parametrize("text", ["0", "0%", "100%", "2", "-1%", "nan", "few", "%", ""])
def test_a_bad_false_alarm_rate_is_rejected_with_what_is_allowed(
    run_reference: Run, fake: FakeServer, text: str
) -> None:
    code, stdout, stderr = run_reference("load", "--false-alarms", text)
    assert (code, stdout) == (2, "")
    assert f'as in "2%" or 0.02, not {text!r}.' in stderr
    assert not fake.requests["LoadReference"]


def test_a_reference_tells_its_false_alarms_and_how_sure_it_is(run: Run, fake: FakeServer) -> None:
    belt = fake.references["belt"] = reference("belt", 8)
    assert ["calibration.false_alarms", "not", "known"] in rows(run("reference", "show", "belt")[1])
    belt.calibration.false_alarm_rate, belt.calibration.false_alarm_rate_upper = 0.02, 0.0841
    code, stdout, stderr = run("reference", "show", "belt")
    assert ("2 %, with 95 % confidence at most 8.4 %" in stdout, code, stderr) == (True, 0, "")
    belt.false_alarm_rate = 0.02
    stderr = run("reference", "show", "belt")[2]
    assert stderr.startswith("Note: 8 images alone show no rate below 11 %. 2 % is extrapolated")
    belt.false_alarm_rate, belt.calibration.image_threshold = 0.001, 21.0
    stderr = run("reference", "show", "belt")[2]
    assert stderr == (
        "Note: 8 images alone show no rate below 11 %. 0.1 % is far beyond that, so the threshold is a guess: 3.5 "
        "times their highest score. Much damage may be missed. Ask for 11 % or more, or load more images.\n"
    )
    belt.calibration.method = reference_pb2.CALIBRATION_METHOD_AUGMENTED_VIEWS
    assert "--false-alarms changes nothing" in run("reference", "show", "belt")[2]


@pytest.mark.parametrize(
    ("views", "taken", "text"),
    [("auto", "8", "3 images (8 views of each), 2352"), ("none", "1", "3 images, 2352"), ("", "-", "3 images, 2352")],
)
def test_whether_views_were_taken_is_told(run: Run, folder: Path, views: str, taken: str, text: str) -> None:
    options = ["--views", views] if views else []
    assert run("reference", "load", folder, "--id", "belt", *options)[1].startswith(f"Loaded belt: {text} patches,")
    assert f"views_per_image             {taken}\n" in run("reference", "show", "belt")[1]


def test_a_damaged_reference_is_deleted_without_a_revision(run: Run, fake: FakeServer) -> None:
    fake.references["belt"] = reference("belt", 3)
    fake.references["belt"].revision = ""
    assert run("reference", "delete", "belt") == (0, "Deleted belt\n", "")


def test_tiles_of_long_images_that_became_squares_are_told(run_reference: Run, fake: FakeServer) -> None:
    image = reference_pb2.ReferenceImage
    tiles = ["--tile-px", 448]
    fake.images["default"] = [image(width_px=640, height_px=480), image()]
    assert "became squares" not in run_reference("load", *tiles)[2]
    fake.images["default"].append(image(width_px=500, height_px=2000))
    assert (
        "Note: Images of 500 x 2000 px became squares of 224 x 224 px: this distorts damage and wastes 75 % of the "
        "work. --aspect keep keeps their proportions.\n"
    ) in run_reference("load", *tiles)[2]
    assert "became squares" not in run_reference("load", *tiles, "--aspect", "keep")[2]
    assert "became squares" not in run_reference("load")[2]
