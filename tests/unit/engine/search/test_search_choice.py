"""The product and the threads of a search are those that a measurement says, unless they are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.measurements import Measurements
from patchserve_server.engine.search import search_choice
from patchserve_server.engine.search.search_choice import SearchChoice, choose_search
from patchserve_server.engine.search.search_product import SearchProduct

CPU = torch.device("cpu")
FP32, BF16, INT8 = SearchProduct


def timed(**times_ms: float) -> Measurements:
    """Measurements with these times; others are not asked for. The searches themselves are run once."""

    def timer(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        return {name: times_ms[name.replace(" ", "_")] for name in functions}

    return Measurements(None, timer)


def choose(
    measurements: Measurements, *, product: str = "auto", threads: int | None = None, device: torch.device = CPU
) -> SearchChoice:
    return choose_search(64, device, measurements, product=product, threads=threads, cores=4)


@pytest.fixture(autouse=True)
def every_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_choice, "can_multiply", lambda _product, _device: True)


@pytest.mark.parametrize("fastest", SearchProduct)
def test_the_fastest_product_is_chosen(fastest: SearchProduct) -> None:
    times_ms = dict.fromkeys(map(str, SearchProduct), 9.0) | {fastest.value: 5.0}
    assert choose(timed(**times_ms), threads=3) == SearchChoice(fastest, 3)


@pytest.mark.parametrize("fastest", [1, 2, 4])
def test_the_fastest_number_of_threads_is_chosen(fastest: int) -> None:
    names = {1: "1_thread", 2: "2_threads", 4: "4_threads"}
    times_ms = dict.fromkeys(names.values(), 9.0) | {names[fastest]: 5.0}
    assert choose(timed(**times_ms), product="fp32") == SearchChoice(FP32, fastest)


def test_all_cores_search_unless_fewer_take_clearly_less_time() -> None:
    times_ms = {"1_thread": 7.5, "2_threads": 8.0, "4_threads": 9.0}
    assert choose(timed(**times_ms), product="fp32").threads == 4
    assert choose(timed(**{**times_ms, "2_threads": 7.0}), product="fp32").threads == 2


def test_what_is_set_is_not_measured() -> None:
    assert choose(timed(), product="int8", threads=2) == SearchChoice(INT8, 2)


def test_a_processor_without_instructions_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_choice, "can_multiply", lambda product, _device: product is FP32)
    assert choose(timed(), threads=2) == SearchChoice(FP32, 2)
    with pytest.raises(StartupError, match="bf16 needs a processor with instructions for it"):
        choose(timed(), product="bf16")


def test_an_unknown_product_is_rejected() -> None:
    with pytest.raises(StartupError, match=r'Unknown search product "fp16". Use fp32, bf16, int8 or auto'):
        choose(timed(), product="fp16")


def test_on_a_gpu_there_is_nothing_to_choose() -> None:
    assert choose(timed(), device=torch.device("cuda")) == SearchChoice(FP32, 1)


def test_the_measured_searches_can_run() -> None:
    def timer(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        for run in functions.values():
            run()
        return dict.fromkeys(functions, 1.0)

    assert choose(Measurements(None, timer)).product in SearchProduct
