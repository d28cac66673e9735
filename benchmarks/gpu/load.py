"""Callers in a process of their own: python -m gpu.load ADDRESS BEGIN END CALLERS OUTPUT REFERENCES FOLDER.

They call until END and count what is answered from BEGIN on (of time.monotonic, which all processes share), and print
what they got as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc

OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.use_local_subchannel_pool", 1)]
OUTPUTS = {
    "scores": inference_pb2.OutputOptions(),
    "JPEG overlay": inference_pb2.OutputOptions(overlay=True, overlay_format=inference_pb2.OVERLAY_FORMAT_JPEG),
    "PNG overlay": inference_pb2.OutputOptions(overlay=True, overlay_format=inference_pb2.OVERLAY_FORMAT_PNG),
}
STEPS = ("queue_ms", "decode_ms", "embed_ms", "search_ms", "render_ms", "total_ms")
_TIMEOUT_S = 30.0


@dataclass
class Answers:
    """What one caller got between BEGIN and END."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    steps_ms: Counter[str] = field(default_factory=Counter)  # sums, as the server reports them


def main() -> None:
    address, begins_s, ends_s, callers, output, references, folder = sys.argv[1:]
    images = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    answers = [Answers() for _ in range(int(callers))]

    def call(number: int) -> None:
        own, sent, ids = answers[number], number, references.split(",")
        with grpc.insecure_channel(address, OPTIONS) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)
            while (started_s := time.monotonic()) < float(ends_s):
                request = inference_pb2.InferRequest(
                    reference_id=ids[sent % len(ids)], image=images[sent % len(images)], output=OUTPUTS[output]
                )
                sent += 1
                try:
                    response = stub.Infer(request, timeout=_TIMEOUT_S)
                except grpc.RpcError as error:
                    own.errors[error.code().name] += 1
                    time.sleep(0.05)
                    continue
                if float(begins_s) <= (ended_s := time.monotonic()) < float(ends_s):
                    own.latencies_ms.append(1000 * (ended_s - started_s))
                    for step in STEPS:
                        own.steps_ms[step] += getattr(response.timing, step)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(int(callers))]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, float(begins_s) - time.monotonic()))
    before_s = time.process_time()
    time.sleep(max(0.0, float(ends_s) - time.monotonic()))
    cpu_s = time.process_time() - before_s
    for thread in threads:
        thread.join()
    told = {
        "latencies_ms": [ms for one in answers for ms in one.latencies_ms],
        "errors": sum((one.errors for one in answers), Counter()),
        "steps_ms": sum((one.steps_ms for one in answers), Counter()),
        "cpu_s": cpu_s,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
