"""Connections to the HTTP port that send nothing, a byte a second or a slow body, from many addresses: others go on."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from patchserve.v1 import inference_pb2
from reliability.harness import TEST, Result, Server, client, load, percentile, server

_ADDRESSES: Final = 8
_AT_ONCE: Final = 1600  # open attempts, over all addresses; twice the files of many processes
_INTERVAL_S: Final = 0.05  # between two calls of others
_REQUEST = inference_pb2.InferRequest(image=TEST[0])
_HEAD = b"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
_STARTS = (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", _HEAD + b"Content-Length: 8000000\r\n\r\n")


async def _attack(number: int, port: int, until_s: float, closed_after_s: list[float]) -> None:
    """One caller, which connects again a second after it is closed."""
    source = f"127.0.1.{number % _ADDRESSES + 1}"
    while time.perf_counter() < until_s:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            opened_s = time.perf_counter()
            writer.write(_STARTS[number % len(_STARTS)])
            while time.perf_counter() < until_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(2**16), 1.0)
                    closed_after_s.append(time.perf_counter() - opened_s)
                    break  # an answer, or the end
                writer.write(b"a")
            writer.close()
        await asyncio.sleep(1.0)


async def main(port: int, duration_s: float) -> None:
    """All attackers, in a process of their own: prints how long each connection was left open."""
    closed_after_s: list[float] = []
    until_s = time.perf_counter() + duration_s
    await asyncio.gather(*(_attack(number, port, until_s, closed_after_s) for number in range(_AT_ONCE)))
    print(json.dumps(closed_after_s))


async def _get(port: int, path: str) -> bool:
    """Whether a request from another address is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return line.startswith(b"HTTP/1.1 200 ")


async def _others(running: Server, port: int, until_s: float) -> Result:
    """How long others wait, and how many of their calls fail."""
    took_ms: dict[str, list[float]] = {"infer": [], "info": []}
    failed, files, rss_mib = 0, 0, 0.0
    async with client(running.address) as stub:
        while time.perf_counter() < until_s:
            started_s = time.perf_counter()
            await stub.Infer(_REQUEST, timeout=60)
            took_ms["infer"].append(1000 * (time.perf_counter() - started_s))
            started_s = time.perf_counter()
            failed += not await _get(port, "/v1/references")
            took_ms["info"].append(1000 * (time.perf_counter() - started_s))
            use = running.resource_use()
            files, rss_mib = max(files, use.open_files), max(rss_mib, use.rss_mib)
            await asyncio.sleep(_INTERVAL_S)
    return {
        "grpc_infer_p99_ms": percentile(took_ms["infer"], 99),
        "http_list_p99_ms": percentile(took_ms["info"], 99),
        "calls": len(took_ms["infer"]) * 2,
        "http_failed": failed,
        "open_files_at_most": files,
        "rss_at_most_mib": rss_mib,
    }


async def run(duration_s: int) -> Result:
    async with server("--http-port", "0") as running:
        port = urlsplit(running.http_url).port
        assert port is not None
        async with client(running.address) as stub:
            await load(stub)
        before = running.resource_use()
        alone = await _others(running, port, time.perf_counter() + duration_s / 4)
        command = (sys.executable, "-m", "reliability.slow_connections", str(port), str(duration_s))
        attack = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        attacked = await _others(running, port, time.perf_counter() + duration_s)
        output, _ = await attack.communicate()
        closed_after_s = json.loads(output)
        await asyncio.sleep(12)  # for the last sum in the log
        after = running.resource_use()
        return {
            "attackers": _AT_ONCE,
            "connections_closed": len(closed_after_s),
            "longest_open_s": max(closed_after_s, default=0.0),
            "alone": alone,
            "attacked": attacked,
            "open_files_before_and_after": [before.open_files, after.open_files],
            "log_bytes": len(running.log),
            "stack_traces": running.log.count("Traceback"),
            "exit_code": await running.stop(),
        }


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
