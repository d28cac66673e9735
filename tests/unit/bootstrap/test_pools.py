"""What a thread logs names the call that it works for."""

from __future__ import annotations

from contextlib import ExitStack

from fakes.calls import FakeCall

from patchserve_server.bootstrap.pools import open_pools
from patchserve_server.config import Settings
from patchserve_server.domain.call_events import CallInfo, current_call


def test_the_work_of_a_call_knows_the_call_on_every_pool_and_the_next_work_does_not() -> None:
    call, seen = FakeCall(), list[tuple[CallInfo | None, CallInfo | None]]()
    with ExitStack() as resources:
        pools = open_pools(Settings(), resources)
        for pool in (pools.images, pools.fitting, pools.opening, pools.storage, pools.outputs):
            token = current_call.set(call)
            during = pool.submit(current_call.get).result(30)
            current_call.reset(token)
            seen.append((during, pool.submit(current_call.get).result(30)))
    assert seen == [(call, None)] * 5
