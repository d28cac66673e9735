"""Which devices a server has, and what an engine alone cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from patchserve_server.bootstrap.processes import devices
from patchserve_server.bootstrap.processes.count import check_engine_settings, check_settings
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", ("auto",)), ("cpu,cpu", ("cpu", "cpu")), ("cuda:0,cuda:1", ("cuda:0", "cuda:1"))]
)
def test_devices_are_those_that_are_named(text: str, expected: tuple[str, ...]) -> None:
    assert devices.devices_of(Settings(device=text)) == expected


@pytest.mark.parametrize("text", ["cpu,tpu", "all,cpu", "auto,cpu", "cpu,", ""])
def test_other_names_are_no_devices(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(device=text)


def test_all_are_the_gpus_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(StartupError, match="this machine has no GPU that may be used"):
        devices.devices_of(Settings(device="all"))
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / name).mkdir()
    assert devices.devices_of(Settings(device="all")) == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert devices.devices_of(Settings(device="all")) == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"http_port": 0}, "--http-port is a setting of fronts"),
        ({"auth_tokens": "x"}, "--auth-tokens is a setting of fronts"),
        ({"engine": "localhost:1"}, "--engine is a setting of fronts"),
        ({"device": "cpu,cpu"}, "has one device"),
    ],
)
def test_settings_of_fronts_are_none_of_an_engine(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(StartupError, match=expected):
        check_engine_settings(Settings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"decode": "device"}, {"preload": Path("references")}])
def test_settings_of_an_engine_elsewhere_are_none_of_its_fronts(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(StartupError, match=f"--{name}.* is a setting of the engine: give it to"):
        check_settings(Settings(engine="localhost:1", **setting))  # type: ignore[arg-type]
    check_settings(Settings(fronts="2", **setting))  # type: ignore[arg-type]
