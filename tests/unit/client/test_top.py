"""What `patchserve top` makes of two answers of GetServerStats."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Sequence

import grpc
import numpy as np
import pytest
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.programs import free_port
from fakes.responses import reference
from fakes.stats import server_stats
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from patchserve_client import AsyncClient, DurationHistogram, ServerStats, _results
from patchserve_client.cli._top_screen import drawn
from patchserve_client.top.activity import activity, percentile_ms
from patchserve_client.top.watched_server import Sample, State, WatchedServer

BOUNDS_S = tuple(0.001 * 2**number for number in range(12))
GONE = Fault(grpc.StatusCode.UNAVAILABLE, "Connection lost.")


def answer(images: int, uptime_s: float, process_id: str = "a") -> ServerStats:
    return _results.server_stats(server_stats(images, uptime_s=uptime_s, process_id=process_id))


def test_rates_are_differences_by_the_clock_of_the_server() -> None:
    now = activity(answer(100, uptime_s=10), answer(150, uptime_s=12))
    assert now.interval_s == 2
    assert now.images_per_s == 25
    assert now.calls_per_s == 30
    assert now.rejected_per_s == 5
    assert now.failures_per_s == {"QUEUE_FULL": 5}
    (line,) = now.references
    assert (line.images_per_s, line.anomalous_share) == (25, 0.2)
    assert (line.intact, line.anomalous) == (120, 30)
    assert now.inspection_p50_ms == pytest.approx(55)  # the middle of the class from 10 to 100 ms


def test_without_images_there_are_no_latencies_and_no_shares() -> None:
    now = activity(answer(100, uptime_s=10), answer(100, uptime_s=12))
    assert (now.images_per_s, now.inspection_p99_ms, now.wait_p50_ms) == (0, None, None)
    assert now.failures_per_s == {}
    assert now.references[0].anomalous_share is None


def test_a_reference_that_was_deleted_and_loaded_again_counts_from_its_start() -> None:
    earlier, later = answer(100, uptime_s=10), answer(20, uptime_s=12)
    now = activity(earlier, later)
    assert now.references[0].images_per_s == 10


def histogram(durations_s: Sequence[float]) -> DurationHistogram:
    counts = [0] * (len(BOUNDS_S) + 1)
    for duration_s in durations_s:
        counts[bisect.bisect_left(BOUNDS_S, duration_s)] += 1
    return DurationHistogram(BOUNDS_S, tuple(counts), sum(durations_s))


@given(st.lists(st.floats(1e-5, 2.0), min_size=1), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_in_the_class_of_the_exact_one(durations_s: list[float], percentile: int) -> None:
    exact_s = np.percentile(durations_s, percentile, method="inverted_cdf")
    place = bisect.bisect_left(BOUNDS_S, exact_s)
    estimate_ms = percentile_ms(histogram(durations_s), percentile)
    assert estimate_ms is not None
    assert 1000 * (0.0, *BOUNDS_S)[place] <= estimate_ms <= 1000 * BOUNDS_S[place] + 1e-9


def test_a_duration_above_all_bounds_counts_as_the_highest() -> None:
    assert percentile_ms(histogram([60.0]), 50) == pytest.approx(1000 * BOUNDS_S[-1])


def looked_at(fake: FakeServer, times: int, window: int = 5) -> list[Sample]:
    async def look() -> list[Sample]:
        async with AsyncClient(fake.address) as client:
            server = WatchedServer("here", client, window)
            return [await server.sample(0.1) for _ in range(times)]

    return asyncio.run(look())


def test_a_server_that_is_away_shows_as_away_and_comes_back(fake: FakeServer) -> None:
    fake.stats.clear()
    fake.stats.extend(server_stats(10 * number, uptime_s=1 + number) for number in range(6))

    async def look() -> list[Sample]:
        async with AsyncClient(fake.address) as client:
            server = WatchedServer("here", client, window=5)
            before = [await server.sample(0.1) for _ in range(2)]
            fake.fail("GetServerStats", GONE)
            away = await server.sample(0.1)
            return [*before, away, *[await server.sample(0.1) for _ in range(2)]]

    samples = asyncio.run(look())
    assert [sample.state for sample in samples] == ["serving", "serving", "away", "serving", "serving"]
    assert [sample.activity is not None for sample in samples] == [False, True, False, False, True]
    assert "Connection lost." in samples[2].message


def test_another_process_begins_again(fake: FakeServer) -> None:
    fake.stats.clear()
    fake.stats.extend([server_stats(100, uptime_s=9), server_stats(3, uptime_s=1, process_id="b")])
    first, second = looked_at(fake, 2)
    assert first.state is second.state is State.SERVING
    assert second.activity is None  # and no negative rates


def test_rates_are_those_of_the_window(fake: FakeServer) -> None:
    fake.stats.clear()
    fake.stats.extend(server_stats(images, uptime_s=uptime_s) for images, uptime_s in ((0, 1), (100, 2), (100, 3)))
    *_, last = looked_at(fake, 3, window=1)
    assert last.activity is not None
    assert last.activity.images_per_s == 0


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault(grpc.StatusCode.UNAVAILABLE, "Starting.", "NOT_READY"), State.UNAVAILABLE),
        (Fault(grpc.StatusCode.UNAUTHENTICATED, "No token.", "NO_CREDENTIALS"), State.FAILED),
        (Fault(grpc.StatusCode.UNIMPLEMENTED, "Too old.", "UNKNOWN_METHOD"), State.FAILED),
        (GONE, State.AWAY),
    ],
)
def test_what_is_wrong_with_a_server_is_told_apart(fake: FakeServer, fault: Fault, state: State) -> None:
    fake.fail("GetServerStats", fault)
    (sample,) = looked_at(fake, 1)
    assert sample.state is state


@pytest.mark.parametrize("width", [80, 140])
def test_the_screen_fits_and_shows_text_of_others_as_text(fake: FakeServer, width: int) -> None:
    fake.stats.clear()
    fake.stats.extend(server_stats(10 * number, uptime_s=1 + number) for number in range(6))
    for number in range(40):
        fake.references[f"belt-{number}"] = reference(f"belt-{number}", 1)
    fake.references["[red]\x1b[2J"] = reference("[red]\x1b[2J", 1)
    *_, sample = looked_at(fake, 3)
    away = Sample(f"localhost:{free_port()}", sample.time, State.AWAY, "No server answers. " * 20)
    console = Console(width=width, height=30, force_terminal=True)
    with console.capture() as capture:
        console.print(drawn([sample, away], width, 30))
    text = capture.get()
    assert len(text.splitlines()) <= 30
    assert "\x1b[2J" not in text
    assert "more" in text
    assert "away" in text
    assert "here" in text
    assert ("streams" in text) == (width == 140)
