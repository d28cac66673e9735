"""A collector of OpenTelemetry that throws away what it gets: `python -m loop.null_collector`."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc import aio


class _Nothing(grpc.GenericRpcHandler):
    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _request: bytes, _: Any) -> bytes:
        return b""


async def main() -> None:
    server = aio.server()
    server.add_generic_rpc_handlers((_Nothing(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"collector listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
