"""PerReferenceBackbone: one network for each set of images, quantized once, and nobody waits for another's."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.quantizer import SIZE_PX, WAIT_S, FakeQuantizer

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import BackboneIdentity
from patchserve_server.engine.backbone.backbone_spec import Int8Recipe
from patchserve_server.engine.backbone.int8.network_cache import NetworkCache, NetworkFile
from patchserve_server.engine.backbone.int8.per_reference_backbone import PerReferenceBackbone
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime

IDENTITY = BackboneIdentity(BACKBONES["efficientnet_lite2"], weights_digest="0" * 64, weights_source="a test")


def silent(_stage: LoadStage, _done: int, _total: int) -> None:
    pass


def images(value: int) -> ModelInputs:
    return np.full((1, SIZE_PX, SIZE_PX, 3), value, np.uint8)


def backbone_of(
    quantizer: FakeQuantizer, cache: NetworkCache | None = None, identity: BackboneIdentity = IDENTITY
) -> PerReferenceBackbone:
    recipe = identity.spec.int8
    assert recipe is not None
    return PerReferenceBackbone(identity, recipe, quantizer, threads=1, cache=cache)


@pytest.fixture
def quantizer() -> Iterator[FakeQuantizer]:
    fake = FakeQuantizer()
    yield fake
    fake.gate.set()  # a failed test must not leave a thread behind


@pytest.fixture
def pool(quantizer: FakeQuantizer) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads
        quantizer.gate.set()


def start_quantizing(
    backbone: PerReferenceBackbone, quantizer: FakeQuantizer, pool: ThreadPoolExecutor, value: int
) -> Future[OpenVinoRuntime]:
    """A quantization that is held in the middle until the gate is set."""
    quantizer.gate.clear()
    started = pool.submit(backbone.runtime_for, images(value), silent)
    assert quantizer.waiting.wait(WAIT_S)
    return started


def test_a_reference_gets_a_runtime_that_counts_its_memory(quantizer: FakeQuantizer) -> None:
    backbone = backbone_of(quantizer)
    runtime = backbone.runtime_for(images(3), silent)
    (layer,) = runtime.layers(images(5))
    assert torch.equal(layer, torch.full((1, 3, SIZE_PX, SIZE_PX), 10.0))
    shape = InputShape.square(SIZE_PX)
    assert runtime.nbytes == backbone.bytes_per_reference(shape) == 65 * 2**20
    assert runtime.precision == backbone.precision == "int8"
    assert runtime.device == backbone.device == torch.device("cpu")


def test_a_network_in_use_does_not_wait_for_a_quantization(quantizer: FakeQuantizer, pool: ThreadPoolExecutor) -> None:
    backbone = backbone_of(quantizer)
    in_use = backbone.runtime_for(images(1), silent)
    started = start_quantizing(backbone, quantizer, pool, 2)
    assert pool.submit(backbone.runtime_for, images(1), silent).result(WAIT_S) is in_use
    assert not started.done()


def test_a_cached_network_does_not_wait_for_a_quantization(
    quantizer: FakeQuantizer, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    backbone_of(quantizer, NetworkCache(tmp_path)).runtime_for(images(1), silent)
    restarted = backbone_of(quantizer, NetworkCache(tmp_path))
    started = start_quantizing(restarted, quantizer, pool, 2)
    assert pool.submit(restarted.runtime_for, images(1), silent).result(WAIT_S).precision == "int8"
    assert not started.done()
    assert [int(call[0, 0, 0, 0]) for call in quantizer.calls] == [1, 2]


def test_all_who_want_the_same_network_get_one(quantizer: FakeQuantizer, pool: ThreadPoolExecutor) -> None:
    backbone = backbone_of(quantizer)
    first = start_quantizing(backbone, quantizer, pool, 1)
    others = [pool.submit(backbone.runtime_for, images(1), silent) for _ in range(3)]
    quantizer.gate.set()
    runtime = first.result(WAIT_S)
    assert all(other.result(WAIT_S) is runtime for other in others)
    assert len(quantizer.calls) == 1


class WatchedLock:
    """A lock that says when a second thread wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wanted_twice = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.wanted_twice.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_references_are_quantized_one_after_the_other(
    quantizer: FakeQuantizer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, lock = backbone_of(quantizer), WatchedLock()
    monkeypatch.setattr(backbone, "_quantization", lock)
    first = start_quantizing(backbone, quantizer, pool, 1)
    second = pool.submit(backbone.runtime_for, images(2), silent)
    assert lock.wanted_twice.wait(WAIT_S)
    assert len(quantizer.calls) == 1
    quantizer.gate.set()
    assert first.result(WAIT_S) is not second.result(WAIT_S)
    assert len(quantizer.calls) == 2


def test_a_load_that_ends_early_keeps_nothing_and_the_next_one_quantizes(
    quantizer: FakeQuantizer, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    def leave(_stage: LoadStage, done: int, _total: int) -> None:
        if done:
            raise InterruptedError

    backbone = backbone_of(quantizer, NetworkCache(tmp_path))
    quantizer.gate.clear()
    leaving = pool.submit(backbone.runtime_for, images(1), leave)
    assert quantizer.waiting.wait(WAIT_S)
    staying = pool.submit(backbone.runtime_for, images(1), silent)
    assert not list(tmp_path.iterdir())
    quantizer.gate.set()
    with pytest.raises(InterruptedError):
        leaving.result(WAIT_S)
    assert staying.result(WAIT_S) is backbone.runtime_for(images(1), silent)
    assert len(quantizer.calls) == 2


def test_a_runtime_is_freed_with_its_last_user(quantizer: FakeQuantizer) -> None:
    backbone = backbone_of(quantizer)
    runtime = backbone.runtime_for(images(1), silent)
    assert backbone.runtime_for(images(1), silent) is runtime
    del runtime
    gc.collect()
    backbone.runtime_for(images(1), silent)
    assert len(quantizer.calls) == 2


class RecordingCache(NetworkCache):
    in_use: AbstractSet[str] = frozenset()

    def write(self, key: str, network: NetworkFile, *, in_use: AbstractSet[str] = frozenset()) -> None:
        self.in_use = in_use
        super().write(key, network, in_use=in_use)


def test_the_cache_keeps_the_networks_in_use(quantizer: FakeQuantizer, tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path)
    backbone = backbone_of(quantizer, cache)
    in_use = [backbone.runtime_for(images(value), silent) for value in (1, 2)]
    backbone.runtime_for(images(3), silent)
    assert len(in_use) == 2
    assert cache.in_use == {path.stem for path in tmp_path.iterdir()}
    assert len(cache.in_use) == 3


def test_networks_have_names_that_stay_the_same_over_releases(quantizer: FakeQuantizer, tmp_path: Path) -> None:
    """Else each server quantizes all of its references again after an update. A new RECIPE is meant to do that."""
    backbone_of(quantizer, NetworkCache(tmp_path)).runtime_for(images(7), silent)
    (file,) = tmp_path.iterdir()
    assert file.name == "9c8ec56cbd899d79b490c2f8fbdfd5b1b9adf5c0012214cb880e76000150bf4e.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        {"weights_digest": "1" * 64},
        {"spec": dataclasses.replace(IDENTITY.spec, name="another")},
        {"spec": dataclasses.replace(IDENTITY.spec, normalization="another")},
        {"spec": dataclasses.replace(IDENTITY.spec, int8=Int8Recipe("another", 0, 0))},
    ],
)
def test_another_backbone_does_not_take_the_network(
    quantizer: FakeQuantizer, tmp_path: Path, change: dict[str, object]
) -> None:
    another = dataclasses.replace(IDENTITY, **change)  # type: ignore[arg-type]
    for identity in (IDENTITY, another):
        backbone_of(quantizer, NetworkCache(tmp_path), identity).runtime_for(images(1), silent)
    assert len(quantizer.calls) == 2


def test_other_images_another_order_and_another_shape_are_other_networks(
    quantizer: FakeQuantizer, tmp_path: Path
) -> None:
    backbone = backbone_of(quantizer, NetworkCache(tmp_path))
    pair = np.concatenate([images(1), images(2)])
    different = [pair, pair[::-1], pair[:1], pair.reshape(1, 2 * SIZE_PX, SIZE_PX, 3)]
    for inputs in [*different, pair.copy()]:
        backbone.runtime_for(inputs, silent)
    assert len(quantizer.calls) == len(different)


def test_a_network_for_larger_images_takes_more_memory(quantizer: FakeQuantizer) -> None:
    quantizer.gate.set()
    backbone = backbone_of(quantizer)
    small, large = (backbone.bytes_per_reference(InputShape.square(side_px)) for side_px in (224, 448))
    assert large - small == 120 * (448**2 - 224**2)  # one thread, one stream
    inputs = np.zeros((1, 448, 448, 3), np.uint8)
    assert backbone.runtime_for(inputs, silent).nbytes == large
