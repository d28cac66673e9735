"""The doctor's lines: all of them of a sound machine, and those of each fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.references import make_reference

from patchserve_server.access.tokens import append_token, new_token
from patchserve_server.access.validity import certificate_validities
from patchserve_server.bootstrap.doctor import credentials, examination, limits, packages
from patchserve_server.bootstrap.doctor.finding import Finding, Status
from patchserve_server.bootstrap.doctor.model import check_decode, check_precision
from patchserve_server.bootstrap.doctor.ports import check_ports
from patchserve_server.bootstrap.doctor.store import check_store
from patchserve_server.cli import main
from patchserve_server.config import Settings
from patchserve_server.domain.callers import Scope
from patchserve_server.engine import preflight
from patchserve_server.engine.measurements import Measurements
from patchserve_server.store import FolderReferenceStore

GIB = 2**30
EMBEDDED = ("--backbone", "efficientnet_lite2")
SOUND = """\
ok       settings      5 by flag
ok       python        VERSION, SYSTEM
ok       libraries     grpcio VERSION, torch VERSION, openvino VERSION, numpy VERSION
ok       extras        installed: NAMES
ok       weights       efficientnet_lite2: efficientnet-lite2-9656183e.pth, SHA-256 9656183eaeaf
ok       device        cpu, AVX512
ok       precision     fp32
ok       store         FOLDER: writable, and no server uses it
ok       disk          5.0 GiB free
ok       references    1 reference, none looks damaged
ok       port          any free one
ok       http port     any free one
ok       credentials   plain text; callers need nothing
ok       clock         NOW
ok       open files    at most 65536
ok       memory        up to 10.0 GiB by the settings; the machine has 64.0 GiB
ok       processor     4 threads on 4 cores
0 faults, 0 warnings
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with one reference."""
    path = tmp_path / "references"
    with_one = FolderReferenceStore(path)
    with_one.save(make_reference())
    with_one.close()
    return path


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command: exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["patchserve-server", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        assert not printed.err
        return int(caught.value.code or 0), printed.out

    return run


def findings(**settings: Any) -> list[Finding]:
    """What is not ok, on a sound machine with the embedded backbone."""
    sound: dict[str, Any] = {"backbone": "efficientnet_lite2", "port": 0, "threads": 4}
    return [each for each in examination.examine(Settings(**sound | settings)) if each.status is not Status.OK]


def only(subject: str, status: Status, message: str, **settings: Any) -> Finding:
    """The only finding that is not ok."""
    if settings.get("store") is None:
        settings["store"] = Path(tempfile.gettempdir()) / "patchserve-of-no-doctor"
    (finding,) = findings(**settings)
    assert (finding.subject, finding.status) == (subject, status), finding
    assert re.search(message, finding.message), finding.message
    return finding


def test_on_a_sound_machine_every_line_is_ok(doctor: Callable[..., tuple[int, str]], folder: Path) -> None:
    flags = (*EMBEDDED, "--port", "0", "--http-port", "0", "--threads", "4", "--store", str(folder))
    before = sorted(folder.rglob("*"))
    code, text = doctor(*flags)
    assert code == 0
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"^(ok +python +).*", r"\1VERSION, SYSTEM", text, flags=re.MULTILINE)
    text = re.sub(r"^(ok +extras +installed: ).*", r"\1NAMES", text, flags=re.MULTILINE)
    text = re.sub(r"^(ok +clock +)\d{4}-\d\d-\d\d \d\d:\d\d UTC$", r"\1NOW", text, flags=re.MULTILINE)
    text = re.sub(r"(grpcio|torch|openvino|numpy) [\w.+]+", r"\1 VERSION", text)
    assert [line.rstrip() for line in text.splitlines()] == SOUND.splitlines()
    assert sorted(folder.rglob("*")) == before, "the doctor changes nothing"


def test_the_exit_code_and_the_document_tell_faults_from_warnings(doctor: Callable[..., tuple[int, str]]) -> None:
    code, text = doctor(*EMBEDDED, "--port", "0", "--threads", "4", "--output", "json")
    document = json.loads(text)
    assert (code, document["faults"], document["warnings"]) == (0, 0, 1)
    code, text = doctor(*EMBEDDED, "--port", "0", "--threads", "4", "--device", "cuda", "--output", "json")
    document = json.loads(text)
    assert (code, document["faults"], document["warnings"]) == (1, 1, 1)
    assert [each["subject"] for each in document["findings"] if each["status"] == "fault"] == ["device"]
    assert all(bool(each["advice"]) == (each["status"] != "ok") for each in document["findings"])


def test_wrong_settings_are_faults_and_all_that_is_said(doctor: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    file = tmp_path / "patchserve.toml"
    file.write_text("prot = 1\n")
    code, text = doctor("--config", str(file), "--threads", "0")
    assert code == 1
    assert [line for line in text.splitlines() if line.startswith("fault")] == [
        f"fault    settings      {file}, line 1: there is no setting 'prot'. Did you mean port?",
        "fault    settings      --threads is '0'; it must be a whole number of at least 1.",
    ]
    assert text.splitlines()[-1] == "2 faults, 0 warnings"


def test_a_check_that_fails_by_itself_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_moon(_: Settings) -> Iterator[Finding]:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr(examination, "CHECKS", (check_moon, *examination.CHECKS))
    finding = only("moon", Status.FAULT, "could not be checked")
    assert "bug" in finding.advice


# -- the backbone


def published(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "wide_resnet50_2-95faca4d.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_weights_that_are_not_here_yet(tmp_path: Path) -> None:
    only("weights", Status.WARNING, "wide_resnet50_2: not on this machine. The first start", backbone="wide_resnet50_2")
    only("weights", Status.WARNING, "Without a network a start uses efficientnet_lite2 instead", backbone="auto")


def test_damaged_weights_in_the_cache(tmp_path: Path) -> None:
    file = published(tmp_path, b"junk")
    finding = only("weights", Status.FAULT, r"95faca4d\.pth is damaged", backbone="wide_resnet50_2")
    assert str(file) in finding.advice


def test_weights_of_a_flag(tmp_path: Path) -> None:
    missing = tmp_path / "none.pth"
    only("weights", Status.FAULT, "cannot be read: No such file", weights=missing)
    only("weights", Status.FAULT, "must end in", weights=tmp_path / "x.bin")
    missing.write_bytes(b"anything: only a start loads it")
    only_store = tmp_path / "store"
    assert not findings(weights=missing, store=only_store)


def test_an_unknown_backbone() -> None:
    found = findings(backbone="resnet", store=Path("/tmp/x"))
    assert {(each.subject, each.status) for each in found} == {("weights", Status.FAULT), ("precision", Status.FAULT)}


def test_a_device_that_is_not_here() -> None:
    found = findings(device="cuda", store=Path("/tmp/x"))
    found_faults = [(each.subject, each.status) for each in found]
    assert found_faults == [("device", Status.FAULT)], "another precision would not help"


def test_a_precision_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "any.pth"
    weights.touch()
    monkeypatch.setattr("patchserve_server.engine.backbone.openvino_runtime.supports_bf16", lambda: False)
    only("precision", Status.FAULT, "needs a processor with", precision="bf16")
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    only("precision", Status.FAULT, "needs the extra int8", precision="int8")
    only(
        "precision",
        Status.FAULT,
        "is not for dinov2",
        precision="int8",
        backbone="dinov2_vits14",
        weights=weights,
    )


def test_a_device_that_cannot_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = only("decode", Status.FAULT, "needs a GPU", decode="device", device="cpu")
    assert "docs/gpu.md" in finding.advice
    found = findings(decode="device", device="cuda", store=tempfile.gettempdir())
    assert [each.subject for each in found if each.status is Status.FAULT] == ["device"], "it has a line already"
    monkeypatch.setattr("patchserve_server.imaging.on_device.open_codec", lambda _: None)
    (line,) = check_decode(Settings(decode="device", device="cpu"))
    assert (line.status, line.message) == (Status.OK, f"device: JPEGs by torchcodec {version('torchcodec')}")
    assert not list(check_decode(Settings()))


def test_fronts_of_an_engine_elsewhere_need_neither_weights_nor_a_device() -> None:
    found = {each.subject: each for each in examination.examine(Settings(engine="localhost:1", port=0))}
    assert not found.keys() & {"weights", "device", "precision", "decode", "store"}
    assert found["fronts"].message == "1 and the engine at localhost:1"
    finding = only("fronts", Status.FAULT, "--decode device is a setting of the engine", engine="a:1", decode="device")
    assert finding.advice == "Leave that setting out."


def test_what_auto_has_measured(tmp_path: Path) -> None:
    (first,) = list(check_precision(Settings(precision="auto", threads=4)))
    assert (first.status, first.message) == (Status.OK, "auto: not measured here yet; the first start measures")
    name = "backbone wide_resnet50_2, 1536, 4 threads"
    folder = tmp_path / "cache" / "patchserve" / "measurements"
    times = Measurements(folder, lambda _: {"fp32": 40.0, "bf16": 21.5}, lambda: True)
    times.times_ms(name, {"fp32": int, "bf16": int})
    (then,) = list(check_precision(Settings(precision="auto", threads=4)))
    assert then.message == "auto: bf16 (fp32 takes 40.0 ms, bf16 takes 21.5 ms for an image, measured here)"
    (stored,) = list(check_precision(Settings(precision="auto", threads=4, store=str(tmp_path))))
    assert stored.status is Status.WARNING


# -- the store


def test_without_a_store_references_are_lost() -> None:
    (finding,) = findings()
    assert (finding.subject, finding.status) == ("store", Status.WARNING)


def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    only("store", Status.FAULT, "cannot be written: Not a directory", store=file)
    only("store", Status.FAULT, "does not exist and cannot be created", store=file / "below")


def test_a_store_of_a_running_server(folder: Path) -> None:
    running = FolderReferenceStore(folder)
    (line, *_) = check_store(Settings(store=str(folder)))
    assert line.message == f"{folder}: in use by a running server"
    running.close()
    (line, *_) = check_store(Settings(store=str(folder)))
    assert line.message == f"{folder}: writable, and no server uses it"
    FolderReferenceStore(folder).close()


@pytest.mark.parametrize(("free_bytes", "status"), [(2**29, Status.WARNING), (2**25, Status.FAULT)])
def test_little_space(free_bytes: int, status: Status, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    only("disk", status, r"\d+ MiB free", store=folder)


def test_a_damaged_reference(folder: Path) -> None:
    shutil.copytree(folder / "parcel", folder / "copied")
    only("references", Status.FAULT, "^1 of 2 references damaged: copied: its pointer belongs", store=folder)
    shutil.rmtree(folder / "copied")
    next(folder.glob("parcel/*/bank.safetensors")).write_bytes(b"")
    only("references", Status.FAULT, "^1 of 1 reference damaged: parcel: its bank file", store=folder)


# -- ports


def test_a_port_that_is_given_twice() -> None:
    settings = Settings(host="0.0.0.0", port=47113, http_port=47113, metrics_port=47113, metrics_host="127.0.0.1")
    first, *others = check_ports(settings)
    assert first.message == "0.0.0.0:47113 is free"
    assert [(finding.status, finding.message, finding.advice) for finding in others] == [
        (Status.FAULT, "--http-port and --port are both 47113", "Set another --http-port."),
        (Status.FAULT, "--metrics-port and --port are both 47113", "Set another --metrics-port."),
    ]
    apart = Settings(host="127.0.0.1", port=47113, metrics_port=47113, metrics_host="127.0.0.2")
    assert [finding.status for finding in check_ports(apart)] == [Status.OK, Status.OK]
    assert [finding.status for finding in check_ports(Settings(port=0, http_port=0, metrics_port=0))] == [Status.OK] * 3


def test_a_port_of_another_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        only("port", Status.FAULT, f"another program listens on 127.0.0.1:{port}", port=port)
        only("http port", Status.FAULT, f"another program listens on 127.0.0.1:{port}", http_port=port)


def test_an_address_of_another_machine() -> None:
    found = list(check_ports(Settings(host="192.0.2.1", port=50051)))
    assert [each.status for each in found] == [Status.FAULT]
    assert "this machine does not have it" in found[0].advice


def test_a_socket_file(tmp_path: Path) -> None:
    (line,) = check_ports(Settings(host=f"unix:{tmp_path}/s"))
    assert line.message == f"unix:{tmp_path}/s is free"
    only("port", Status.FAULT, "cannot be created", host=f"unix:{tmp_path}/none/s")


# -- certificates, tokens, clock


def tls(tmp_path: Path) -> dict[str, Path]:
    cert, key = Authority().write(tmp_path, "server")
    return {"tls_cert": cert, "tls_key": key}


def test_a_certificate_without_its_key(tmp_path: Path) -> None:
    files = tls(tmp_path)
    only("credentials", Status.FAULT, "TLS needs both", tls_cert=files["tls_cert"])
    other = Authority().write(tmp_path, "other")[1]
    only("credentials", Status.FAULT, "does not belong to the first", tls_cert=files["tls_cert"], tls_key=other)


def test_a_certificate_that_ends_soon_has_ended_or_is_not_valid_yet(tmp_path: Path) -> None:
    files = tls(tmp_path)
    only("certificates", Status.WARNING, "--tls-cert: certificate of CN=server ends in 0 days", **files)

    (finding,) = validities_at(files, 2)
    assert (finding.subject, finding.status) == ("certificates", Status.FAULT)
    assert "expired on" in finding.message
    (finding,) = validities_at(files, -2)
    assert "is valid only from" in finding.message
    assert "clock" in finding.advice


def validities_at(files: dict[str, Path], days: float) -> list[Finding]:
    """The certificates, as seen on another day."""
    now = datetime.now(UTC) + timedelta(days=days)
    found = certificate_validities("--tls-cert", files["tls_cert"])
    return [credentials._validity(each, now) for each in found]


def test_tokens_that_end(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    times = {"never": None, "soon": datetime.now(UTC) + timedelta(days=5.5), "ended": datetime(2001, 1, 1, tzinfo=UTC)}
    for name, time in times.items():
        append_token(file, new_token(name, [Scope.INFER], time)[1])
    found = findings(auth_tokens=file, store=tmp_path / "store")
    assert [(each.subject, each.status) for each in found] == [("tokens", Status.WARNING)] * 2
    assert [each.message for each in found] == [
        f"--auth-tokens: token of soon ends in 5 days, on {times['soon']:%Y-%m-%d}",
        "--auth-tokens: token of ended expired on 2001-01-01",
    ]


def test_what_anybody_can_reach(tmp_path: Path) -> None:
    only("credentials", Status.FAULT, "nothing is encrypted without TLS", host="0.0.0.0")
    found = findings(host="0.0.0.0", insecure=True, store=tmp_path / "store")
    assert [(each.subject, each.status) for each in found] == [("credentials", Status.WARNING)] * 2
    assert "Anybody who can reach" in found[1].message


def test_a_clock_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = credentials.check_clock(Settings(), tmp_path)
    assert line.status is Status.OK
    monkeypatch.setattr(credentials, "is_synchronized", lambda: False)
    (line,) = credentials.check_clock(Settings(jwt_jwks=tmp_path), tmp_path)
    assert (line.status, line.message.partition(",")[2]) == (Status.WARNING, " not synchronized; JWTs end by it")
    file = tmp_path / "of tomorrow"
    file.touch()
    tomorrow_s = datetime.now(UTC).timestamp() + 86_400
    os.utime(file, (tomorrow_s, tomorrow_s))
    (line,) = credentials.check_clock(Settings(), file)
    assert line.status is Status.FAULT
    assert "before the server was installed" in line.message


# -- limits


def test_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "open_files_limit", lambda: 256)
    finding = only("open files", Status.WARNING, "at most 256; 512 calls may need 1152")
    assert "LimitNOFILE" in finding.advice


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cgroup_bytes", lambda: 4 * GIB)
    only("memory", Status.WARNING, "up to 10.0 GiB by the settings; the container or service has 4.0 GiB")
    monkeypatch.setattr(limits, "cgroup_bytes", lambda: None)
    monkeypatch.setattr(limits, "machine_bytes", lambda: 8 * GIB)
    only("memory", Status.WARNING, "the machine has 8.0 GiB")


def test_little_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    only("processor", Status.WARNING, "8 threads on 4 cores", threads=8)
    monkeypatch.setattr(limits, "cgroup_cores", lambda: 1.5)
    finding = only("processor", Status.WARNING, "4 threads on 4 cores, of which it may use the time of 1.5")
    assert "--threads 2" in finding.advice


# -- packages


def test_a_library_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(packages, "requires", lambda _: ["numpy>=99", "none-of-this-name>=1", 'rich<1; extra == "x"'])
    (_, line) = packages.check_versions(Settings())
    assert line.status is Status.FAULT
    assert re.fullmatch(r"numpy is \S+, but must be >=99; none-of-this-name is missing", line.message)


def test_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    only("python", Status.FAULT, r"3\.9\.1; the server needs >=3\.11")


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ({"http_port": 0}, "http"),
        ({"decode": "device"}, "gpu"),
        ({"precision": "int8"}, "int8"),
        ({"backbone": "dinov2_vits14", "weights": Path(__file__).with_suffix(".pth")}, "timm"),
    ],
)
def test_an_extra_that_the_settings_need(settings: dict[str, Any], extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provided = SimpleNamespace(get_all=lambda _: list(packages._OF_SERVERS))  # an older installation knows fewer
    monkeypatch.setattr(packages, "metadata", lambda _: provided)
    monkeypatch.setattr(packages, "_problems", lambda name: ["it is missing"] if name == extra else [])
    *faults, line = packages.check_extras(Settings(**settings))
    (finding,) = faults
    assert finding.status is Status.FAULT
    assert f"needs the extra {extra}: it is missing" in finding.message
    assert extra not in line.message
    *none, line = packages.check_extras(Settings())
    assert not none
    assert line.message.endswith(f"not installed: {extra}")
