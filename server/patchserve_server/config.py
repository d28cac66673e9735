"""The server's settings: one frozen object, read once from flags and PATCHSERVE_* variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _cores() -> int:
    """Those that this process may run on: a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """Every setting has a flag (--max-message-mib) and a variable (PATCHSERVE_MAX_MESSAGE_MIB); the flag wins."""

    model_config = SettingsConfigDict(
        env_prefix="PATCHSERVE_",
        frozen=True,
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        cli_prog_name="patchserve-server serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 listens on every IPv4 address."""
    port: int = Field(default=50051, ge=0, le=65535)
    """The port to listen on; 0 takes any free one."""
    tls_cert: Path | None = None
    """The server's certificate and those that lead to its authority (PEM). Read again when renewed."""
    tls_key: Path | None = None
    """The key of --tls-cert (PEM, no passphrase). Read again when renewed."""
    tls_client_ca: Path | None = None
    """Who may sign clients' certificates (PEM): without such a certificate nobody connects. Read again when renewed."""
    insecure: bool = False
    """Listen without TLS where other machines can reach it: everything, tokens too, travels unencrypted."""
    auth_tokens: Path | None = None
    """The file of bearer tokens, a line of `patchserve-server token create` each. Read again when it changes."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """Take JWTs of this issuer (the claim iss) as bearer tokens."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """Whom JWTs must be for (the claim aud)."""
    jwt_jwks: Path | None = None
    """The issuer's public keys, a JWKS file. Read again when it changes."""
    backbone: Literal["wide_resnet50_2", "efficientnet_lite2", "auto"] = "wide_resnet50_2"
    """What describes patches. auto: wide_resnet50_2, or efficientnet_lite2 where its weights can't be had."""
    weights: Path | None = None
    """A weights file (.pth or .safetensors) for the backbone. Left out: torchvision's, downloaded once."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the backbone runs: auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16", "int8", "auto"] = "fp32"
    """What the backbone computes in. int8: CPUs, needs patchserve[int8]. auto: bf16 where maps agree, else fp32."""
    store: Path | None = None
    """The folder that keeps references over restarts. Left out: they live in memory only."""
    preload: Path | None = None
    """A folder of images of undamaged items, loaded at start as reference "default"."""
    save_outputs: Path | None = None
    """A folder that keeps every overlay that is drawn. Left out: none is kept."""
    heatmap_scale: Literal["relative", "calibrated"] = "relative"
    """The overlay's colors where a request does not say."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """The largest message taken or sent, in MiB."""
    max_image_mib: int = Field(default=32, ge=1, le=1024)
    """The largest encoded image, in MiB."""
    max_image_megapixels: int = Field(default=64, ge=1, le=1024)
    """The most pixels of an image, in millions."""
    max_reference_images: int = Field(default=1000, ge=1)
    """The most images in one reference."""
    max_bank_mib: int = Field(default=4096, ge=1)
    """The memory that all banks together may take, with their networks where the precision is int8, in MiB.

    With --store, those that were not used longest make room and are read again when asked for; else a load over it is
    refused."""
    max_pending_images: int = Field(default=64, ge=2)
    """The most images under way at once, over all calls; streams take at most half."""
    max_pending_mib: int = Field(default=256, ge=1)
    """The most encoded images and answers under way at once, in MiB; never less than --max-message-mib."""
    max_pending_loads: int = Field(default=4, ge=1)
    """The most loads under way at once."""
    max_calls: int = Field(default=512, ge=2)
    """The most calls under way at once, open streams included."""
    client_share: float = Field(default=0.5, gt=0, le=1)
    """The share of all these that one client may take, half of it by streams. 1 where a proxy makes all clients one."""
    max_in_flight: int = Field(default=64, ge=1)
    """The most frames under way at once in one stream."""
    default_in_flight: int = Field(default=8, ge=1)
    """The frames under way at once in a stream that does not ask for a number."""
    default_timeout_s: float = Field(default=30.0, gt=0)
    """The deadline of a unary call that has none, in seconds."""
    load_timeout_s: float = Field(default=600.0, gt=0)
    """The deadline of a load that has none, in seconds."""
    stream_write_timeout_s: float = Field(default=30.0, gt=0)
    """How long an answer may wait for a caller who does not read before its call is ended, in seconds."""
    max_connection_age_s: float = Field(default=0.0, ge=0)
    """After so many seconds a connection takes no new calls, so that clients connect anew; 0: never. Streams go on."""
    max_batch_size: int = Field(default=8, ge=1)
    """The most images of one reference that are inspected together."""
    max_queue_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long an image may wait for others to be inspected with, in milliseconds: for GPUs, a CPU gains nothing."""
    threads: int = Field(default_factory=_cores, ge=1)
    """The threads that the backbone may use, and as many again that decode and draw. A quota of CPU time
    (a container's limit) is not looked at: say it here."""
    drain_delay_s: float = Field(default=1.0, ge=0)
    """How long a stopping server still takes calls after its health turned to NOT_SERVING, in seconds."""
    drain_grace_s: float = Field(default=30.0, ge=0)
    """How long accepted work may take after that, in seconds."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged to standard error."""
