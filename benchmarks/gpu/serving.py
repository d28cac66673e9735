"""A server with front processes on this machine, and callers in processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc

from gpu.device_watch import DeviceWatch
from gpu.load import STEPS
from gpu.options import Options
from gpu.part import tell
from gpu.processes import children, kill_tree, processor_s
from gpu.table import Case, Goal, Measured
from gpu.trial import PROGRAM as TRIAL
from patchserve.v1 import reference_pb2, service_pb2_grpc

PARCELS = Path(__file__).resolve().parents[2] / "samples" / "parcels"
SERVER = ("-c", "from patchserve_server.cli import main; main()")
GOALS_PER_S = {"scores": 1500, "JPEG overlay": 800, "PNG overlay": 500}
OUTPUTS = {"cpu": ("scores", "JPEG overlay", "PNG overlay"), "device": ("scores", "JPEG overlay", "PNG overlay")}

_CALLERS_START_S = 1.0  # until their processes call
_LOAD_TIMEOUT_S = 120
_TOLD_LINES = ("Backbone: using", "Anomaly maps", "JPEG", '"level": "warning"', '"level": "error"')


@dataclass
class Served:
    """A server that is ready."""

    options: Options
    pid: int
    address: str
    start_s: float
    scores_per_s: float = 0.0  # of the case that comes first
    _steps: list[str] = field(default_factory=list)  # lines of the note

    def add_step(self, line: str) -> None:
        """Tells what is known of calls so far: the part may be ended before its last case."""
        self._steps.append(line)
        head = "| output | " + " | ".join((*STEPS, "p99_ms for the caller")) + " | processor ms of an image |"
        title = f"Milliseconds of a call, {self.options.part}, as the server reports them:"
        tell(note="\n".join((title, "", head, "|" + " --- |" * (len(STEPS) + 3), *self._steps)))


@contextmanager
def opened(options: Options) -> Iterator[Served]:
    """A server with one reference.

    Raises:
        RuntimeError: it does not start. Its last words are in the message.
    """
    decode = options.part.split()[-1]
    program = TRIAL if options.is_trial else SERVER
    flags = ["--device", options.device, "--precision", options.precision, "--fronts", options.fronts]
    flags += ["--backbone", options.backbone, "--weights", str(options.weights(options.backbone))]
    flags += ["--port", "0", "--client-share", "1", "--max-pending-images", "512", "--max-queue-delay-ms", "2"]
    if decode == "device":
        flags += ["--decode", decode]
    log, started_s = options.server_log, time.monotonic()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, *program, "serve", *flags], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if " listening on " not in line:
                raise RuntimeError(f"The server has not started: {' '.join(log.read_text().split())[-600:]}")
            served = Served(options, process.pid, line.split(" listening on ")[1].split()[0], 0.0)
            load_reference(served.address, "default")
            served.start_s = time.monotonic() - started_s
            yield served
            said = [each for each in log.read_text().splitlines() if any(word in each for word in _TOLD_LINES)]
            if said:
                tell(note=f"The log of the server, {options.part}:\n\n" + "\n".join(said[:12]))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)


def load_reference(address: str, reference_id: str) -> None:
    """Loads a parcel: 784 rows."""
    image = next(path for path in sorted((PARCELS / "train" / "good").iterdir())).read_bytes()
    with grpc.insecure_channel(address) as channel:
        service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(
            reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=[image]), timeout=_LOAD_TIMEOUT_S
        )


def cases(options: Options) -> list[Case[Served]]:
    decode = options.part.split()[-1]
    found = [Case(f"server start with decode {decode}, reference loaded", _start)]
    for output in OUTPUTS[decode]:
        name = f"served, decode {decode}, {output}"
        found.append(Case(name, partial(_output, output=output), Goal(GOALS_PER_S[output])))
    mixed = options.scale.mixed
    if decode == "cpu":
        found.append(Case(f"served, decode cpu, {mixed} references mixed, scores", _mixed, Goal(0.9, of_ratio=True)))
    return found


def _start(served: Served, _: float) -> Measured:
    scale = served.options.scale
    fronts = sum(name == "front" for name, _ in children(served.pid)) or 1
    callers = f"{scale.caller_processes} x {scale.callers} callers on the same cores"
    return Measured(served.start_s, "s", more=f"fronts: {fronts}; {callers}")


def _output(served: Served, seconds: float, output: str) -> Measured:
    measured = _under_load(served, seconds, output, ("default",))
    bare = served.options.bare_per_s
    if output == "scores":
        served.scores_per_s = measured.value
    if not bare:
        return measured
    return Measured(measured.value, ratio=measured.value / bare, to=f"{bare:,.0f}/s, bare network", more=measured.more)


def _mixed(served: Served, seconds: float) -> Measured:
    ids = [f"mixed-{number}" for number in range(served.options.scale.mixed)]
    for reference_id in ids:
        load_reference(served.address, reference_id)
    measured = _under_load(served, seconds, "scores", ids)
    one_per_s = served.scores_per_s
    ratio, to = (measured.value / one_per_s, f"{one_per_s:,.0f}/s, with one reference") if one_per_s else (None, "")
    return Measured(measured.value, ratio=ratio, to=to, more=measured.more)


def _under_load(served: Served, seconds: float, output: str, references: tuple[str, ...] | list[str]) -> Measured:
    options, scale = served.options, served.options.scale
    begins_s = time.monotonic() + _CALLERS_START_S + scale.warm_up_s
    ends_s = begins_s + seconds
    command = [sys.executable, "-m", "gpu.load", served.address, str(begins_s), str(ends_s), str(scale.callers), output]
    command += [",".join(references), str(options.images)]
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(scale.caller_processes)]
    time.sleep(max(0.0, begins_s - time.monotonic()))
    watch, before_s = DeviceWatch(options.device), processor_s(served.pid)
    time.sleep(max(0.0, ends_s - time.monotonic()))
    used_s, device = processor_s(served.pid), watch.stop()
    answers = [json.loads(caller.communicate()[0]) for caller in callers]
    latencies_ms = [ms for each in answers for ms in each["latencies_ms"]]
    errors = sum((Counter(each["errors"]) for each in answers), Counter[str]())
    if not latencies_ms:
        raise RuntimeError(f"No call was answered; errors: {dict(errors) or 'none'}")
    count = len(latencies_ms)
    steps = sum((Counter(each["steps_ms"]) for each in answers), Counter[str]())
    processor = {name: 1000 * (used - before_s.get(name, 0.0)) / count for name, used in used_s.items()}
    processor["callers"] = 1000 * sum(each["cpu_s"] for each in answers) / count
    p99_ms = statistics.quantiles(latencies_ms, n=100)[98] if count > 1 else latencies_ms[0]
    ms = [f"{steps[step] / count:.1f}" for step in STEPS]
    words = ", ".join(f"{name} {each:.2f}" for name, each in processor.items())
    name = output if len(references) == 1 else f"{output}, {len(references)} references"
    served.add_step(f"| {name} | {' | '.join(ms)} | {p99_ms:.1f} | {words} |")
    more = [f"{sum(errors.values())} calls failed: {dict(errors)}"] if errors else []
    if device is not None:
        more.append(f"device {100 * device.busy:.0f} % busy, {device.memory_mib:.0f} MiB")
    return Measured(count / seconds, more="; ".join(more))
