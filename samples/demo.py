"""`make demo`: a real server inspects the sample parcels over gRPC.

The exit code is 1 if something failed. A wrong verdict is not a failure: the table and summary.json show it.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import webbrowser
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
HTTP_PORT = 8080  # that of `make serve`

if sys.platform == "win32":  # Ctrl-Break is the signal that one process can send to another
    STOP, OWN_GROUP = signal.CTRL_BREAK_EVENT, {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    STOP, OWN_GROUP = signal.SIGTERM, {"start_new_session": True}

console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 100)


class DemoError(Exception):
    """The demo failed; the message says why."""


@dataclass(frozen=True)
class Finding:
    """The verdicts on one image, and whether they are right."""

    path: Path
    calibrated: InferenceResult  # by Infer
    relative: InferenceResult  # by InferStream

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
    """A patchserve-server process on a free port.

    After `wait_ready`, `address` is that of gRPC. `http_url` is that of the page; empty without `http_port`.
    """

    address: str
    http_url: str

    def __init__(self, backbone: str, store: Path, log: Path, http_port: int | None) -> None:
        self.log = log
        program = Path(sysconfig.get_path("scripts")) / "patchserve-server"
        command = [program, "serve", "--backbone", backbone, "--host", "127.0.0.1", "--port", "0", "--store", store]
        command += [] if http_port is None else ["--http-port", str(http_port)]
        with log.open("wb") as log_file:
            # Ctrl-C is for the demo, which stops the server.
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log_file, text=True, **OWN_GROUP)

    def wait_ready(self) -> None:
        """Wait until the server is ready.

        Raises:
            DemoError: the server ended, or was not ready in time.
        """
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout or ():
                if LISTENING in line:
                    words = line.split(LISTENING, maxsplit=1)[1].split()
                    self.address, self.http_url = words[0], words[2] if words[1] == "and" else ""
                    return
        finally:
            watchdog.cancel()
        raise DemoError(f"The server did not start (exit code {self._process.wait()}).\n{self.log_tail()}")

    def wait(self) -> None:
        """Wait until the server ends by itself, which it does not."""
        self._process.wait()

    def stop(self) -> int:
        """Stop the server, kill it if it does not end, and return its exit code."""
        self._process.send_signal(STOP)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def running_server(backbone: str, log: Path, http_port: int | None) -> Iterator[Server]:
    """A ready server, which is stopped at the end of the block.

    Raises:
        DemoError: the server did not start, or did not stop with exit code 0.
    """
    with tempfile.TemporaryDirectory(prefix="patchserve-demo-") as store:
        server = Server(backbone, Path(store), log, http_port)
        try:
            with console.status("Starting the server (the first start may download weights)"):
                server.wait_ready()
            yield server
        finally:
            exit_code = server.stop()
        if exit_code != 0:
            raise DemoError(f"The server stopped with exit code {exit_code}.\n{server.log_tail()}")


def free_http_port() -> int:
    """`HTTP_PORT`, or 0 (any free one) if another program has it."""
    try:
        socket.create_server(("127.0.0.1", HTTP_PORT)).close()
    except OSError:
        return 0
    return HTTP_PORT


def show_page(server: Server) -> None:
    """Open the page in a browser, and keep the server running until Ctrl-C."""
    console.print(f"The page: {server.http_url} (its reference is these intact parcels)")
    console.print(f"Other programs: {server.address} by gRPC, such as patchserve --server {server.address} info")
    if not webbrowser.open(server.http_url):
        console.print("No browser could be opened here: open the address of the page yourself.")
    console.print("Ctrl-C stops the server.")
    try:
        server.wait()
    except KeyboardInterrupt:
        console.print()


def inspect(client: Client, images: list[Path]) -> tuple[list[Finding], dict[str, float]]:
    """Inspect every image by Infer, then all of them by InferStream. Also returns the seconds that each took.

    Raises:
        DemoError: a frame failed, or the two calls disagree.
    """
    started_s = time.perf_counter()
    silent = not console.is_terminal
    tracked = track(images, "Infer", console=console, transient=True, disable=silent)
    single = [client.infer(path, overlay=True, heatmap_scale="calibrated") for path in tracked]
    stream_started_s = time.perf_counter()
    frames = [Frame(path, frame_id=path.relative_to(PARCELS).as_posix()) for path in images]
    stream = client.infer_stream(frames, overlay=True, heatmap_scale="relative")
    streamed = list(track(stream, "InferStream", len(frames), console=console, transient=True, disable=silent))
    times = {"infer_s": stream_started_s - started_s, "stream_s": time.perf_counter() - stream_started_s}
    findings = []
    for path, frame, by_infer, by_stream in zip(images, frames, single, streamed, strict=True):
        if by_stream.result is None or by_stream.frame_id != frame.frame_id:
            raise DemoError(f"Frame {frame.frame_id!r} failed, answered as {by_stream.frame_id!r}: {by_stream.error}")
        if by_stream.result.anomaly.is_anomalous != by_infer.anomaly.is_anomalous:
            raise DemoError(f"Infer and InferStream disagree on {frame.frame_id}.")
        findings.append(Finding(path, by_infer, by_stream.result))
    return findings, times


def print_server(info: ServerInfo, address: str) -> None:
    console.print(f"patchserve {info.version} on {address}: {info.backbone}, {info.precision}, {info.device}")
    console.print(f"Weights: {info.weights_source} (SHA-256 {info.weights_digest[:12]})")
    if info.fallback_reason:
        console.print(f"Fallback backbone: {info.fallback_reason}", style="yellow")


def verdict_table(findings: list[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("image", "verdict", ""):
        table.add_column(heading, no_wrap=True)
    for heading in ("x threshold", "regions", "area", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for finding in findings:
        result = finding.calibrated
        table.add_row(
            finding.name,
            "anomalous" if result.anomaly.is_anomalous else "intact",
            "right" if finding.is_right else "WRONG",
            f"{result.anomaly.ratio:.2f} x",
            str(len(result.regions)),
            f"{result.anomaly.anomalous_area_percentage:.1f} %",
            f"{result.timing.total_ms:.0f}",
            style=None if finding.is_right else "red",
        )
    return table


def count_verdicts(findings: list[Finding]) -> dict[str, int]:
    return {
        "right": sum(finding.is_right for finding in findings),
        "missed": sum(finding.is_damaged and not finding.is_right for finding in findings),
        "false_alarms": sum(not finding.is_damaged and not finding.is_right for finding in findings),
    }


def write_images(out: Path, findings: list[Finding], info: ServerInfo, reference: ReferenceInfo) -> None:
    cells = []
    for finding in findings:
        result = finding.calibrated
        overlays = [each.overlay for each in (result, finding.relative)]
        overlays[0].save(out / "overlays" / f"{finding.name.replace(' ', '_')}.png")
        numbers = f"{result.anomaly.ratio:.2f} x the threshold"
        images = (Image.open(finding.path), *overlays)
        cells.append(Cell(finding.name, images, result.anomaly.is_anomalous, finding.is_right, numbers))
    subtitle = (
        f"patchserve {info.version}, {info.backbone} on {info.device}.  "
        f"Reference: {reference.image_count} intact parcels.  "
        "Above 1 x the threshold is anomalous.  Green frame: the verdict is right."
    )
    contact_sheet("Parcels inspected over gRPC", subtitle, cells).save(out / "contact_sheet.png")


def summary(
    info: ServerInfo, reference: ReferenceInfo, findings: list[Finding], times: dict[str, float]
) -> dict[str, object]:
    return {
        "server": asdict(info),
        "reference": asdict(reference),
        "verdicts": count_verdicts(findings),
        "times": {name: round(seconds, 3) for name, seconds in times.items()},
        "images": [
            {
                "image": finding.path.relative_to(PARCELS).as_posix(),
                "truth": "damaged" if finding.is_damaged else "intact",
                "right": finding.is_right,
                "ratio": finding.calibrated.anomaly.ratio,
                "anomaly": asdict(finding.calibrated.anomaly),
                "damage": asdict(finding.calibrated.damage),
                "regions": [asdict(region) for region in finding.calibrated.regions],
                "timing": asdict(finding.calibrated.timing),
            }
            for finding in findings
        ],
    }


def clear(out: Path) -> None:
    """Remove the files of an earlier run, and no others."""
    for name in ("contact_sheet.png", "summary.json", "server.log"):
        (out / name).unlink(missing_ok=True)
    for overlay in (out / "overlays").glob("*.png"):
        overlay.unlink()
    (out / "overlays").mkdir(parents=True, exist_ok=True)


def demo(out: Path, backbone: str, *, opens_page: bool) -> None:
    """Run the demo and write its results to the folder `out`.

    Raises:
        DemoError, PatchserveError, OSError: something failed.
    """
    clear(out)
    started_s = time.perf_counter()
    with running_server(backbone, out / "server.log", free_http_port() if opens_page else None) as server:
        ready_s = time.perf_counter()
        with Client(server.address) as client:
            info = client.server_info()
            print_server(info, server.address)
            with console.status("Loading the reference"):
                reference = client.load_reference(sorted((PARCELS / "train" / "good").iterdir()), profile="verdict")
            loaded_s = time.perf_counter()
            console.print(f"Reference: {reference.image_count} intact parcels, {reference.patch_count} patches")
            images = sorted((PARCELS / "test").glob("*/*.jpg"), key=lambda path: (path.parent.name != "good", path))
            findings, times = inspect(client, images)
        console.print(verdict_table(findings))
        times = {"start_s": ready_s - started_s, "load_s": loaded_s - ready_s, **times}
        times["all_s"] = time.perf_counter() - started_s
        write_images(out, findings, info, reference)
        report = summary(info, reference, findings, times)
        (out / "summary.json").write_text(json.dumps(report, indent=2, default=str) + "\n")
        print_results(out, findings)
        if opens_page:
            show_page(server)
    console.print("The server stopped with exit code 0.")
    if not opens_page:
        console.print(
            "To try it with your own images or a camera: make demo ARGS=--open\n"
            f"That keeps the server running, with these parcels, and opens its page: http://127.0.0.1:{HTTP_PORT}"
        )


def print_results(out: Path, findings: list[Finding]) -> None:
    verdicts = count_verdicts(findings)
    console.print(
        f"{verdicts['right']} of {len(findings)} verdicts are right, {verdicts['missed']} damaged parcels were missed, "
        f"{verdicts['false_alarms']} intact parcels were reported as damaged."
    )
    console.print(f"See {out / 'contact_sheet.png'}; all numbers are in {out / 'summary.json'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Starts a server and inspects the sample parcels with it.")
    parser.add_argument(
        "--out", type=Path, default=HERE.parent / "out" / "demo", help="output folder (default: out/demo)"
    )
    parser.add_argument("--backbone", default="auto", help="the server's backbone (default: auto)")
    parser.add_argument(
        "--open", action="store_true", help="open the server's page in a browser, and keep the server until Ctrl-C"
    )
    options = parser.parse_args()
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # the server must not outlive the demo
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        demo(options.out, options.backbone, opens_page=options.open)
    except (DemoError, OSError) as error:
        sys.exit(f"demo: {error}")
    except PatchserveError as error:
        sys.exit(f"demo: {error} (see the server's log: {options.out / 'server.log'})")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
