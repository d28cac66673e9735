"""Search radius and region of interest: from the command line to the request, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from fakes.fake_server import FakeServer, png, serving
from typer.testing import CliRunner, Result

from patchserve_client.cli import app

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture
def run(fake: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`patchserve reference` against the fake server; `load` gets an image to load."""
    monkeypatch.setenv("PATCHSERVE_SERVER", fake.address)
    image = tmp_path / "a.png"
    image.write_bytes(png())

    def invoke(command: str, *arguments: object) -> Result:
        loaded = [image] if command == "load" else []
        return CliRunner().invoke(app, ["reference", command, *map(str, [*loaded, *arguments])])

    return invoke


def shown(run: Run) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in run("show").stdout.splitlines())


def test_a_search_radius_and_regions_are_sent_and_shown(run: Run, fake: FakeServer) -> None:
    belt, label = "0.1,0 0.9,0 0.9,1 0.1,1", "0,0\t0.25,0\n0,.5"
    assert run("load", "--search-radius", 0.1, "--region", belt, "--region", label).exit_code == 0
    (request,) = fake.requests["LoadReference"]
    assert request.search_radius == 0.1
    corners = [[(point.x, point.y) for point in polygon.points] for polygon in request.region_of_interest]
    assert corners == [[(0.1, 0), (0.9, 0), (0.9, 1), (0.1, 1)], [(0, 0), (0.25, 0), (0, 0.5)]]
    told = shown(run)
    assert told["search_radius"] == "0.1"
    assert told["region_of_interest"] == "0.1,0.0 0.9,0.0 0.9,1.0 0.1,1.0; 0.0,0.0 0.25,0.0 0.0,0.5"
    document = json.loads(run("show", "--json").stdout)
    assert (document["search_radius"], len(document["region_of_interest"])) == (0.1, 2)
    assert document["region_of_interest"][1] == [[0, 0], [0.25, 0], [0, 0.5]]


def test_a_region_that_is_shown_can_be_given(run: Run, fake: FakeServer) -> None:
    run("load", "--region", "0.333333333333333315,0 1,1e-9 1,.7")
    assert run("load", "--region", shown(run)["region_of_interest"]).exit_code == 0
    first, second = fake.requests["LoadReference"]
    assert second.region_of_interest == first.region_of_interest


def test_where_nothing_is_given_nothing_is_sent(run: Run, fake: FakeServer) -> None:
    assert run("load").exit_code == 0
    (request,) = fake.requests["LoadReference"]
    assert not request.HasField("search_radius")
    assert not request.region_of_interest
    told = shown(run)
    assert (told["search_radius"], told["region_of_interest"]) == ("-", "-")


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
def test_a_region_that_is_none_is_refused_with_what_is(run: Run, fake: FakeServer, text: str) -> None:
    refused = run("load", "--region", "0,0 1,0 1,1", "--region", text)
    assert (refused.exit_code, refused.stdout) == (2, "")
    allowed = 'three or more corners, each share 0 to 1, as in "0.1,0 0.9,0 0.9,1 0.1,1"'
    assert f"A --region is {allowed}, not {text!r}." in refused.stderr
    assert not fake.requests["LoadReference"]


@pytest.mark.parametrize("text", ["0", "-0.1", "1.1", "nan", "inf", "10%", ""])
def test_a_search_radius_that_is_none_is_refused_with_what_is(run: Run, fake: FakeServer, text: str) -> None:
    refused = run("load", "--search-radius", text)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"a share of the image's side, above 0 and at most 1, not {text!r}." in refused.stderr
    assert not fake.requests["LoadReference"]
