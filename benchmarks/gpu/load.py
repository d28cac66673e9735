"""Callers in a process of their own: python -m gpu.load ADDRESS SECONDS CALLERS OUTPUT FOLDER prints their answers."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc

OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.use_local_subchannel_pool", 1)]
OUTPUTS = {
    "scores": inference_pb2.OutputOptions(),
    "jpeg": inference_pb2.OutputOptions(overlay=True, overlay_format=inference_pb2.OVERLAY_FORMAT_JPEG),
    "png": inference_pb2.OutputOptions(overlay=True, overlay_format=inference_pb2.OVERLAY_FORMAT_PNG),
}


def main() -> None:
    address, seconds, callers, output, folder = sys.argv[1:]
    images = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    ends_s = time.perf_counter() + float(seconds)
    counts = [0] * int(callers)

    def call(number: int) -> None:
        with grpc.insecure_channel(address, OPTIONS) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)
            while time.perf_counter() < ends_s:
                image = images[(number + counts[number]) % len(images)]
                stub.Infer(inference_pb2.InferRequest(image=image, output=OUTPUTS[output]))
                counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(int(callers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(counts))


if __name__ == "__main__":
    main()
