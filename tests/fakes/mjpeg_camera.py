"""A camera that sends JPEGs over HTTP, as network cameras do, and fails as a test wants."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fakes.images import card, encoded


@dataclass
class Connection:
    """What happens on one connection: so many frames, and then its end."""

    frame_count: int | None = None  # None: frames without end
    freezes: bool = False  # stays open without frames, instead of being closed
    is_refused: bool = False
    repeats_a_picture: bool = False


@dataclass
class MjpegCamera:
    """`connections` are used one after the other; the last one is used again."""

    connections: deque[Connection] = field(default_factory=lambda: deque([Connection()]))
    pause_s: float = 0.02  # between frames
    address: str = ""
    connection_count: int = 0
    sent_at: list[datetime] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def play(self, *connections: Connection) -> None:
        self.connections = deque(connections)

    def wait_for_frames(self, count: int) -> None:
        """Return when so many frames were sent."""
        while len(self.sent_at) < count and not self.ended.wait(0.01):
            pass

    def next_connection(self) -> Connection:
        self.connection_count += 1
        return self.connections.popleft() if len(self.connections) > 1 else self.connections[0]


def _handler(camera: MjpegCamera, pictures: list[bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = camera.next_connection()
            if connection.is_refused:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                self._send(connection)
            except OSError:  # the reader has gone
                return
            if connection.freezes:
                camera.ended.wait()

        def _send(self, connection: Connection) -> None:
            numbers = itertools.count() if connection.frame_count is None else range(connection.frame_count)
            for number in numbers:
                picture = pictures[0 if connection.repeats_a_picture else number % len(pictures)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                self.wfile.flush()
                camera.sent_at.append(datetime.now(UTC))
                if camera.ended.wait(camera.pause_s):
                    return

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Print nothing."""

    return Handler


@contextmanager
def mjpeg_camera() -> Iterator[MjpegCamera]:
    """A camera on a free port."""
    camera = MjpegCamera()
    pictures = [encoded(card(seed), "JPEG") for seed in range(5)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(camera, pictures))
    server.daemon_threads = True
    camera.address = f"http://127.0.0.1:{server.server_address[1]}/stream"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield camera
    finally:
        camera.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
