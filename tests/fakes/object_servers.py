"""Real servers of objects on this machine: of S3 (moto, SeaweedFS; rclone ignores conditions), Azure and Google."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from fakes.google_xml import google_xml
from fakes.programs import free_port, program
from fakes.waiting import wait_until

BUCKET = "references"
KEY_ID, SECRET = "test-key", "test-secret"
AZURITE = Path(__file__).resolve().parents[1] / "azurite" / "node_modules" / ".bin" / "azurite-blob"
_AZURITE_ACCOUNT = "devstoreaccount1"  # the account and the key that its documentation names
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class ObjectServer:
    """A running server with one bucket."""

    scheme: str
    environment: Mapping[str, str]  # with which a program finds it, and has its keys
    command: Sequence[str]
    port: int
    log: Path
    is_ready: Callable[[], bool] = lambda: True  # once it answers
    process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str) -> str:
        """A store in its bucket."""
        return f"{self.scheme}://{BUCKET}/{prefix}"

    def start(self) -> None:
        """Start it, again after `kill`, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | self.environment, start_new_session=True
            )
        wait_until(lambda: self._answers() and self.is_ready(), timeout_s=60)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP and SIGCONT let it hang for a while."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a lost machine does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} ended: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{BUCKET}", timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@contextmanager
def moto_server(folder: Path) -> Iterator[ObjectServer]:
    """moto: the protocol of S3, in memory."""
    port = free_port()
    with _running(_s3([program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, folder)) as server:
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
        yield server


@contextmanager
def seaweedfs_server(folder: Path) -> Iterator[ObjectServer]:
    """SeaweedFS: a real object store, on disk. It can be killed and started again."""
    roles = ("s3", "filer", "master", "volume", "admin")
    ports = {role: free_port() for role in (*roles, *(f"{role}.port.grpc" for role in roles))}
    flags = [f"-{role if '.' in role else f'{role}.port'}={port}" for role, port in ports.items()]
    data = folder / "data"
    data.mkdir()
    off = ("-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
    where = (f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}")
    server = _s3([program("weed"), "mini", *where, *off, *flags], ports["s3"], folder)
    server.is_ready = lambda: _has_bucket(server)
    with _running(server):
        yield server


@contextmanager
def rclone_server(folder: Path) -> Iterator[ObjectServer]:
    """rclone: speaks the protocol of S3, and ignores every condition of a write."""
    port, data = free_port(), folder / "data"
    (data / BUCKET).mkdir(parents=True)
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY_ID},{SECRET}"]
    with _running(_s3([*command, str(data)], port, folder)) as server:
        yield server


@contextmanager
def azurite_server(folder: Path) -> Iterator[ObjectServer]:
    """Azurite: Azure Blob Storage, in memory. It comes from npm: `make azurite`."""
    if not AZURITE.exists():
        if "CI" in os.environ and shutil.which("npm"):
            pytest.fail("CI runs the tests of Azurite, which is not installed: make azurite")
        pytest.skip("Azurite is not installed: make azurite")
    port = free_port()
    flags = ("--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck")
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": _AZURITE_ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": _AZURITE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_AZURITE_ACCOUNT}",
    }
    server = ObjectServer("az", environment, [str(AZURITE), *flags], port, folder / "log")
    with _running(server):
        _create_container(port)
        yield server


@contextmanager
def google_server(folder: Path) -> Iterator[ObjectServer]:
    """The emulator of Google Cloud Storage, in memory, behind the API that it lacks."""
    port = free_port()
    flags = ("--host", "127.0.0.1", "--port", str(port), "--default-bucket", BUCKET, "--in-memory")
    server = ObjectServer("gs", {}, [program("gcp-storage-emulator"), "start", *flags], port, folder / "log")
    with _running(server), google_xml(port, BUCKET) as xml_port:
        account = {"gcs_base_url": f"http://127.0.0.1:{xml_port}", "disable_oauth": True}
        account |= {"client_email": "", "private_key": "", "private_key_id": ""}
        server.environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
        yield server


def _s3(command: Sequence[str], port: int, folder: Path) -> ObjectServer:
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    return ObjectServer("s3", environment, command, port, folder / "log")


@contextmanager
def _running(server: ObjectServer) -> Iterator[ObjectServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _has_bucket(server: ObjectServer) -> bool:
    """Whether a request with its keys finds the bucket: SeaweedFS makes it a moment after its start."""
    import obstore  # noqa: PLC0415 - an extra, and the fakes are imported without it
    from obstore.exceptions import BaseError  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    names = {"endpoint": "AWS_ENDPOINT_URL", "access_key_id": "AWS_ACCESS_KEY_ID", "region": "AWS_REGION"}
    config: Any = {name: server.environment[variable] for name, variable in names.items()}
    config["secret_access_key"] = SECRET
    store = S3Store(BUCKET, config=config, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    try:
        next(obstore.list(store), None)
    except BaseError:
        return False
    return True


def _create_container(port: int) -> None:
    """A request of Azure, signed with the shared key."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    resource = f"/{_AZURITE_ACCOUNT}/{_AZURITE_ACCOUNT}/{BUCKET}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    signature = b64encode(hmac.digest(b64decode(_AZURITE_KEY), text.encode(), "sha256")).decode()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {_AZURITE_ACCOUNT}:{signature}",
        "Content-Length": "0",
    }
    url = f"http://127.0.0.1:{port}/{_AZURITE_ACCOUNT}/{BUCKET}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()
