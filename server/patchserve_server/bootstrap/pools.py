"""The threads that do what blocks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from patchserve_server.bootstrap.process import lower_thread_priority
from patchserve_server.config import Settings

INFERENCE_WORKERS = 2  # one batch searches while the other runs the backbone
DRAWING_WORKERS = 2  # one batch is encoded while the other is decoded
OPENING_WORKERS = 4  # one slow opening does not delay the others
LOOK_UP_WORKERS = 8  # each waits for a distant store

P = ParamSpec("P")
T = TypeVar("T")


class _Pool(ThreadPoolExecutor):
    """Threads that work for the call that gave them the work: what they log names it."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(partial(copy_context().run, function, *args, **kwargs))


@dataclass(frozen=True, slots=True)
class Pools:
    """The threads of a process."""

    images: ThreadPoolExecutor
    inference: ThreadPoolExecutor
    drawing: ThreadPoolExecutor  # used only if the device draws
    fitting: ThreadPoolExecutor
    opening: ThreadPoolExecutor
    storage: ThreadPoolExecutor
    polling: ThreadPoolExecutor
    looking_up: ThreadPoolExecutor
    maintaining: ThreadPoolExecutor
    outputs: ThreadPoolExecutor


def open_pools(settings: Settings, resources: ExitStack) -> Pools:
    """Threads are started when they are needed first."""

    def pool(name: str, threads: int, *, finishes: bool = False) -> ThreadPoolExecutor:
        executor = _Pool(threads, thread_name_prefix=name, initializer=lower_thread_priority)
        resources.callback(executor.shutdown, wait=finishes, cancel_futures=not finishes)
        return executor

    return Pools(
        images=pool("images", settings.threads),
        inference=pool("inference", INFERENCE_WORKERS),
        drawing=pool("drawing", DRAWING_WORKERS),
        fitting=pool("fitting", 1),
        opening=pool("opening", OPENING_WORKERS),
        storage=pool("storage", 1),
        polling=pool("polling", 1),
        looking_up=pool("looking_up", LOOK_UP_WORKERS),
        maintaining=pool("maintaining", 1),
        outputs=pool("outputs", 1, finishes=True),
    )
