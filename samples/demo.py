"""What `make demo` runs: a real server inspects the sample parcels over gRPC.

Exits 1 where something failed. A wrong verdict is no failure: it is told, in the table and in summary.json.
"""

import argparse
import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from contact_sheet import Cell, contact_sheet
from PIL import Image
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from patchserve_client import Client, Frame, InferenceResult, PatchserveError, ReferenceInfo, ServerInfo

HERE = Path(__file__).resolve().parent
PARCELS = HERE / "parcels"
START_TIMEOUT_S = 900  # the first start may download weights
STOP_TIMEOUT_S = 60
LISTENING = " listening on "

console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 100)


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What was said of one image, and what is true."""

    path: Path
    calibrated: InferenceResult  # asked for by Infer
    relative: InferenceResult  # the same image as a frame of InferStream

    @property
    def name(self) -> str:
        return f"{self.path.parent.name} {self.path.stem}"

    @property
    def is_damaged(self) -> bool:
        return self.path.parent.name != "good"

    @property
    def is_right(self) -> bool:
        return self.calibrated.anomaly.is_anomalous == self.is_damaged


class Server:
    """A patchserve-server of our own on a free port."""

    def __init__(self, backbone: str, store: Path, log: Path) -> None:
        self.log = log
        program = Path(sysconfig.get_path("scripts")) / "patchserve-server"
        command = [program, "serve", "--backbone", backbone, "--host", "127.0.0.1", "--port", "0", "--store", store]
        with log.open("wb") as log_file:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log_file, text=True)

    def wait_ready(self) -> str:
        """The address that it listens on.

        Raises:
            DemoError: it ended, or did not get ready in time.
        """
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout or ():
                if LISTENING in line:
                    return line.split(LISTENING, maxsplit=1)[1].split()[0]
        finally:
            watchdog.cancel()
        raise DemoError(f"The server did not start (exit code {self._process.wait()}).\n{self.log_tail()}")

    def stop(self) -> int:
        """Its exit code after SIGTERM; killed where it does not end."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def running_server(backbone: str, log: Path) -> Iterator[str]:
    """A server's address; it is stopped at the end.

    Raises:
        DemoError: it did not start, or did not stop as it should.
    """
    with tempfile.TemporaryDirectory(prefix="patchserve-demo-") as store:
        server = Server(backbone, Path(store), log)
        try:
            with console.status("Starting the server; the first time it may download weights"):
                address = server.wait_ready()
            yield address
        finally:
            code = server.stop()
        if code != 0:
            raise DemoError(f"The server ended with exit code {code}.\n{server.log_tail()}")


def inspect(client: Client, images: list[Path]) -> tuple[list[Finding], dict[str, float]]:
    """Every image by Infer, then all of them by InferStream, and the seconds that each took.

    Raises:
        DemoError: a frame failed, or the two ways do not agree.
    """
    begun = time.perf_counter()
    silent = not console.is_terminal
    steps = track(images, "Infer", console=console, transient=True, disable=silent)
    single = [client.infer(path, overlay=True, heatmap_scale="calibrated") for path in steps]
    between = time.perf_counter()
    frames = [Frame(path, frame_id=path.relative_to(PARCELS).as_posix()) for path in images]
    stream = client.infer_stream(frames, overlay=True, heatmap_scale="relative")
    streamed = list(track(stream, "InferStream", len(frames), console=console, transient=True, disable=silent))
    times = {"infer_s": between - begun, "stream_s": time.perf_counter() - between}
    findings = []
    for path, frame, by_infer, by_stream in zip(images, frames, single, streamed, strict=True):
        if by_stream.result is None or by_stream.frame_id != frame.frame_id:
            raise DemoError(f"Frame {frame.frame_id!r} came back as {by_stream.frame_id!r}: {by_stream.error}")
        if by_stream.result.anomaly.is_anomalous != by_infer.anomaly.is_anomalous:
            raise DemoError(f"Infer and InferStream do not agree on {frame.frame_id}.")
        findings.append(Finding(path, by_infer, by_stream.result))
    return findings, times


def introduce(info: ServerInfo, address: str) -> None:
    console.print(f"patchserve {info.version} on {address}: {info.backbone}, {info.precision}, {info.device}")
    console.print(f"Weights in use: {info.weights_source} (SHA-256 {info.weights_digest[:12]})")
    if info.fallback_reason:
        console.print(f"Not the preferred backbone, because: {info.fallback_reason}", style="yellow")


def table(findings: list[Finding]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in ("image", "verdict", ""):
        shown.add_column(heading, no_wrap=True)
    for heading in ("score", "area %", "regions", "damage %", "ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for found in findings:
        answer = found.calibrated
        shown.add_row(
            found.name,
            "anomalous" if answer.anomaly.is_anomalous else "intact",
            "right" if found.is_right else "WRONG",
            f"{answer.anomaly.score:.3f}",
            f"{answer.anomaly.anomalous_area_percentage:.1f}",
            str(len(answer.regions)),
            f"{answer.damage.damage_percentage:.1f}",
            f"{answer.timing.total_ms:.0f}",
            style=None if found.is_right else "red",
        )
    return shown


def counts(findings: list[Finding]) -> dict[str, int]:
    return {
        "right": sum(found.is_right for found in findings),
        "missed": sum(found.is_damaged and not found.is_right for found in findings),
        "false_alarms": sum(not found.is_damaged and not found.is_right for found in findings),
    }


def write_images(out: Path, findings: list[Finding], info: ServerInfo, reference: ReferenceInfo) -> None:
    cells = []
    for found in findings:
        answer = found.calibrated
        overlays = [result.overlay for result in (answer, found.relative)]
        overlays[0].save(out / "overlays" / f"{found.name.replace(' ', '_')}.png")
        numbers = f"score {answer.anomaly.score:.2f}   damage {answer.damage.damage_percentage:.1f} %"
        images = (Image.open(found.path), *overlays)
        cells.append(Cell(found.name, images, answer.anomaly.is_anomalous, found.is_right, numbers))
    subtitle = (
        f"patchserve {info.version}, {info.backbone} on {info.device}.  "
        f"Reference: {reference.image_count} intact parcels.  "
        "A score above 0.5 is anomalous.  Green frame: the verdict is right."
    )
    contact_sheet("Parcels inspected over gRPC", subtitle, cells).save(out / "contact_sheet.png")


def summary(
    info: ServerInfo, reference: ReferenceInfo, findings: list[Finding], times: dict[str, float]
) -> dict[str, object]:
    return {
        "server": asdict(info),
        "reference": asdict(reference),
        "verdicts": counts(findings),
        "times": {name: round(seconds, 3) for name, seconds in times.items()},
        "images": [
            {
                "image": found.path.relative_to(PARCELS).as_posix(),
                "truth": "damaged" if found.is_damaged else "intact",
                "right": found.is_right,
                "anomaly": asdict(found.calibrated.anomaly),
                "damage": asdict(found.calibrated.damage),
                "regions": [asdict(region) for region in found.calibrated.regions],
                "timing": asdict(found.calibrated.timing),
            }
            for found in findings
        ],
    }


def clear(out: Path) -> None:
    """Removes what an earlier run left, and nothing else."""
    for old in ("contact_sheet.png", "summary.json", "server.log"):
        (out / old).unlink(missing_ok=True)
    for old_overlay in (out / "overlays").glob("*.png"):
        old_overlay.unlink()
    (out / "overlays").mkdir(parents=True, exist_ok=True)


def demo(out: Path, backbone: str) -> None:
    """Runs it all and writes `out`.

    Raises:
        DemoError, PatchserveError, OSError: something failed.
    """
    clear(out)
    begun = time.perf_counter()
    with running_server(backbone, out / "server.log") as address, Client(address) as client:
        started = time.perf_counter()
        info = client.server_info()
        introduce(info, address)
        with console.status("Loading the reference"):
            reference = client.load_reference(sorted((PARCELS / "train" / "good").iterdir()))
        loaded = time.perf_counter()
        console.print(f"Reference: {reference.image_count} intact parcels, {reference.patch_count} patches")
        images = sorted((PARCELS / "test").glob("*/*.jpg"), key=lambda path: (path.parent.name != "good", path))
        findings, times = inspect(client, images)
    console.print(table(findings))
    times = {"start_s": started - begun, "load_s": loaded - started, **times, "all_s": time.perf_counter() - begun}
    write_images(out, findings, info, reference)
    report = summary(info, reference, findings, times)
    (out / "summary.json").write_text(json.dumps(report, indent=2, default=str) + "\n")
    found = counts(findings)
    console.print(
        f"{found['right']} of {len(findings)} verdicts are right, {found['missed']} damaged parcels were missed, "
        f"{found['false_alarms']} intact ones were suspected. The server drained and ended with exit code 0."
    )
    console.print(f"Look at {out / 'contact_sheet.png'}; all numbers are in {out / 'summary.json'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Inspects the sample parcels with a server of its own.")
    parser.add_argument("--out", type=Path, default=HERE.parent / "out" / "demo", help="the folder to write (out/demo)")
    parser.add_argument("--backbone", default="auto", help="as for the server (auto)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server must not outlive the demo
    try:
        demo(options.out, options.backbone)
    except (DemoError, OSError) as error:
        sys.exit(f"demo: {error}")
    except PatchserveError as error:
        sys.exit(f"demo: {error} (the server's log: {options.out / 'server.log'})")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
