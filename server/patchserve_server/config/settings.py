"""The server's settings: one frozen object."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.store_address import STORES, is_url, parse_address
from patchserve_server.system.limits import available_cores

MAX_FRONTS: Final = 64


def user_path(path: Path | str) -> Path:
    """The path with ~ replaced, which a shell leaves alone in `--store=~/x` and in variables.

    Raises:
        ValueError: it begins with the name of a user whom the system does not know.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError("the user after ~ is unknown; write the whole path") from None


def _with_user_path(host: str) -> str:
    scheme, colon, path = host.partition(":~")
    return f"{scheme}:{user_path(f'~{path}')}" if colon else host


def words_of(text: str | None) -> tuple[str, ...]:
    """The parts of a setting that is separated by commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _checked_hosts(text: str | None) -> str | None:
    for host in words_of(text):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
            raise ValueError(f"{host!r} is not the name of a host; write inspect.example.com, without scheme and port")
    return None if text is None else text.lower()


def _checked_origins(text: str | None) -> str | None:
    for origin in words_of(text):
        if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?", origin):
            raise ValueError(
                f"{origin!r} is not an origin as browsers send it; write https://line.example.com or "
                "http://localhost:3000, in lower case and without a path"
            )
    return text


def _checked_layers(text: str | None) -> str | None:
    numbers = [int(word) if re.fullmatch("[0-9]{1,4}", word) else None for word in words_of(text)]
    if None in numbers or numbers != sorted(set(numbers)):  # type: ignore[type-var]
        raise ValueError("write numbers in ascending order, separated by commas, such as 1,2")
    return text


def _checked_fronts(text: str) -> str:
    if text != "auto" and not (re.fullmatch("[1-9][0-9]?", text) and int(text) <= MAX_FRONTS):
        raise ValueError(f"write auto, or a number from 1 to {MAX_FRONTS}")
    return text


def _checked_store(value: object) -> str:
    if not isinstance(value, str | Path):
        raise ValueError(f"it is text: {STORES}")  # noqa: TRY004 - pydantic makes a sentence of it
    if not is_url(text := str(value)):
        return str(user_path(text))
    try:
        return str(parse_address(text))
    except StartupError as error:
        raise ValueError(error.message) from None


def _joined(words: object) -> object:
    """Words as a file may list them, as one text."""
    if isinstance(words, list) and all(isinstance(word, str | int) and "," not in str(word) for word in words):
        return ",".join(map(str, words))
    return words


_UserPath: TypeAlias = Annotated[Path, AfterValidator(user_path)]
_Store: TypeAlias = Annotated[str, BeforeValidator(_checked_store, json_schema_input_type=str)]
_Words: TypeAlias = Annotated[str | None, BeforeValidator(_joined, json_schema_input_type=str | list[str | int])]
"""Words that are separated by commas; in a file also an array."""


class _AtRunTime:
    """Marks a setting that may change while the server runs."""

    def __repr__(self) -> str:
        return "AT_RUN_TIME"


AT_RUN_TIME: Final = _AtRunTime()


class Settings(BaseSettings):
    """Each setting is a flag (--max-message-mib), a variable (PATCHSERVE_MAX_MESSAGE_MIB) and a key of the TOML file
    (max_message_mib). The flag wins over the variable, and the variable over the file.
    """

    model_config = SettingsConfigDict(
        env_prefix="PATCHSERVE_",
        frozen=True,
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # `fronts = 2` in a file
        allow_inf_nan=False,  # JSON cannot show them, and a time without an end is none
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `read_configuration` reads the sources, and knows where each value comes from."""
        return (init_settings,)

    @field_validator("*", mode="before")
    @classmethod
    def _check_truth(cls, value: object, info: ValidationInfo) -> object:
        """`port = true` in a file is a mistake, and not the port 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("only switches are true or false")
        return value

    host: Annotated[str, AfterValidator(_with_user_path)] = "127.0.0.1"
    """Address to listen on. 0.0.0.0 listens on every IPv4 address, unix:PATH on a Unix socket that only the server's
    user can open."""
    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 picks a free one. A Unix socket has none."""
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the HTTP face, on the same host: the documented service, the contract as JSON, and the page to look at; 0
    picks a free one. Needs the extra http. Default: no HTTP."""
    http_allowed_hosts: Annotated[_Words, AfterValidator(_checked_hosts)] = None
    """Names that HTTP requests may have in Host, separated by commas, such as inspect.example.com; localhost and IP
    addresses always may. Default: any name, but no other one on loopback without tokens."""
    http_allowed_origins: Annotated[_Words, AfterValidator(_checked_origins)] = None
    """Other sites whose pages may use the HTTP face (CORS), separated by commas, such as https://line.example.com. They
    send tokens in headers. Default: none."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port for Prometheus, with the path /metrics; 0 picks a free one. Needs the extra metrics. Certificates and tokens
    are those of the other ports; any valid token may read it. Default: no metrics."""
    metrics_host: str | None = Field(default=None, min_length=1)
    """Address of --metrics-port. Default: --host, or 127.0.0.1 if that is a Unix socket."""
    metrics_max_references: Annotated[int, AT_RUN_TIME] = Field(default=100, ge=0, le=10_000)
    """Number of references that have series of their own; the others share one with the name "other"."""
    tls_cert: _UserPath | None = None
    """PEM file with the server's certificate and its chain. Reloaded when it changes."""
    tls_key: _UserPath | None = None
    """PEM file with the key of --tls-cert, without a passphrase. Reloaded when it changes."""
    tls_client_ca: _UserPath | None = None
    """PEM file with the authorities that sign client certificates. With it, every client needs a certificate.
    Reloaded when it changes."""
    insecure: bool = False
    """Allow plain text where other machines can reach the server, and on the way to --engine: everything, tokens
    included, is sent unencrypted."""
    auth_tokens: _UserPath | None = None
    """File of bearer tokens, with lines from `patchserve-server token create`. Reloaded when it changes."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """Accept JWTs from this issuer (claim iss) as bearer tokens."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """Audience that JWTs must have (claim aud)."""
    jwt_jwks: _UserPath | None = None
    """JWKS file with the issuer's public keys. Reloaded when it changes."""
    backbone: str = Field(default="wide_resnet50_2", min_length=1)
    """Feature extractor: wide_resnet50_2, efficientnet_lite2; with the extra timm dinov2_vits14, dinov2_vits14_reg,
    dinov3_vits16 and timm:NAME. auto: wide_resnet50_2, or efficientnet_lite2 if its weights cannot be obtained."""
    backbone_layers: Annotated[_Words, AfterValidator(_checked_layers)] = None
    """Numbers of the used layers of timm:NAME, separated by commas, such as 1,2. Other backbones have their own."""
    weights: _UserPath | None = None
    """Weights file for the backbone (.pth or .safetensors). Default: the published weights, downloaded once."""
    device: str = Field(
        default="auto",
        pattern=r"^(auto|all|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*)$",
        examples=["auto", "cpu", "cuda", "cuda:N", "all"],
    )
    """Device for the backbone: auto, cpu, cuda or cuda:N. Several, such as cuda:0,cuda:1, or all GPUs with all: each
    has a process, beside at least one front."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "int8", "auto"] = "fp32"
    """Number format of the backbone. int8: CPU, needs the extra int8. tf32, fp16: GPU. auto: the fastest of bf16 and
    fp32, on a GPU also of tf32 and fp16, whose maps agree with those in fp32, by measurement at the start."""
    decode: Literal["cpu", "device"] = "cpu"
    """Where JPEGs are decoded, and JPEG overlays of them drawn. device: on the GPU, whose pixels differ, mostly by a
    level or two, and scores with them; needs the extra gpu. References are always made from the pixels of the CPU."""
    search_product: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Number format of the first product of a search; results are the same. auto: the one measured to be fastest."""
    search_threads: int | None = Field(default=None, ge=1)
    """Threads of a search. Default: the number that is measured to be fastest, up to --threads."""
    store: _Store | None = Field(default=None, min_length=1)
    """What keeps references over restarts: a folder of this server alone, or a bucket that any number of servers share,
    such as s3://BUCKET/PREFIX (also gs, az; needs the extra store). Default: references are kept in memory only."""
    store_cache: _UserPath | None = None
    """Folder where a server keeps a copy of what it has read from a bucket. Default: patchserve/store in
    $XDG_CACHE_HOME (~/.cache)."""
    store_cache_mib: int = Field(default=10_240, ge=1)
    """Largest size of that copy, in MiB; what was used least recently is removed first."""
    preload: _UserPath | None = None
    """Folder of images of undamaged items, loaded at start as reference "default". Its stored sensitivity stays."""
    save_outputs: _UserPath | None = None
    """Folder where inspections are saved: the original, an overlay and the result. Default: nothing is saved."""
    save_outputs_keep: Annotated[Literal["all", "anomalous"], AT_RUN_TIME] = "all"
    """Which inspections are saved there."""
    save_outputs_max_count: Annotated[int, AT_RUN_TIME] = Field(default=10_000, ge=1)
    """Largest number of inspections there; the oldest are removed first."""
    save_outputs_max_days: Annotated[float, AT_RUN_TIME] = Field(default=30.0, gt=0, le=36500)
    """Age at which they are removed, in days."""
    save_outputs_max_mib: Annotated[int, AT_RUN_TIME] = Field(default=10_240, ge=1)
    """Largest size of all of them together, in MiB."""
    heatmap_scale: Literal["relative", "calibrated"] = "relative"
    """Color scale of overlays for requests that do not set one."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest message that is received or sent, in MiB."""
    max_image_mib: int = Field(default=32, ge=1, le=1024)
    """Largest encoded image, in MiB."""
    max_image_megapixels: int = Field(default=64, ge=1, le=1024)
    """Largest image, in millions of pixels."""
    max_reference_images: int = Field(default=1000, ge=1, le=50_000)
    """Largest number of images in one reference."""
    max_bank_mib: int = Field(default=4096, ge=1)
    """Memory for all open references together, in MiB: banks, search indexes, the network's buffers for
    inputs above 224 px and, in int8, networks.

    With --store, the least recently used references leave memory for others and are read again when needed; without it,
    previous revisions count too and leave first, and loads over this limit are rejected. A load may use as much again
    while it builds its bank; one that needs more is rejected before it does."""
    max_pending_images: Annotated[int, AT_RUN_TIME] = Field(default=64, ge=2)
    """Largest number of images in progress, over all calls; streams get at most half."""
    max_pending_mib: Annotated[int, AT_RUN_TIME] = Field(default=256, ge=1)
    """Largest size of encoded images and responses in progress, in MiB; never less than --max-message-mib."""
    max_pending_loads: Annotated[int, AT_RUN_TIME] = Field(default=4, ge=1)
    """Largest number of loads in progress."""
    max_calls: int = Field(default=512, ge=2)
    """Largest number of calls in progress, open streams included."""
    client_share: float = Field(default=0.5, gt=0, le=1)
    """Share of these limits that one client gets of what others leave, half of it for its streams. Use 1 behind a proxy
    that makes all clients look like one."""
    max_in_flight: Annotated[int, AT_RUN_TIME] = Field(default=64, ge=1)
    """Largest number of frames in progress in one stream."""
    default_in_flight: Annotated[int, AT_RUN_TIME] = Field(default=8, ge=1)
    """Number of frames in progress in a stream that does not set one."""
    default_timeout_s: Annotated[float, AT_RUN_TIME] = Field(default=30.0, gt=0)
    """Deadline of unary calls that do not set one, in seconds."""
    load_timeout_s: Annotated[float, AT_RUN_TIME] = Field(default=600.0, gt=0)
    """Deadline of loads that do not set one, in seconds."""
    max_timeout_s: Annotated[float, AT_RUN_TIME] = Field(default=600.0, gt=0)
    """Longest deadline of unary calls, in seconds. A caller may set a later one, but is answered within this time."""
    max_load_timeout_s: Annotated[float, AT_RUN_TIME] = Field(default=7200.0, gt=0)
    """The same for loads, in seconds."""
    first_message_timeout_s: float = Field(default=30.0, gt=0)
    """How long a call may take to send its first message, in seconds. The message of a slow connection must arrive in
    this time. If others need its place, a call whose message does not come ends sooner."""
    max_idle_streams: int = Field(default=64, ge=1)
    """Number of streams of one client that may send nothing for ten seconds or longer. Of more, those idle longest end.
    Idle streams also end when --max-calls is reached."""
    stream_write_timeout_s: float = Field(default=30.0, gt=0)
    """How long a response waits for a caller who does not read, before the call ends, in seconds."""
    max_connection_age_s: float = Field(default=0.0, ge=0)
    """Age at which a connection accepts no more calls, so that clients reconnect, in seconds; 0: no limit. Open streams
    continue."""
    max_batch_size: int | None = Field(default=None, ge=1)
    """Largest number of images in a batch, of any references. Default: 64 on a GPU; on a CPU twice --threads, from 4
    to 8, because more would only be answered later."""
    max_queue_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long an image waits for others to form a batch, in milliseconds. For GPUs; a CPU gains nothing."""
    threads: int = Field(default_factory=available_cores, ge=1)
    """Threads of the backbone, and as many again that decode and draw. Set it if a container limits CPU time: the
    server does not detect such a limit."""
    fronts: Annotated[str, AfterValidator(_checked_fronts), WithJsonSchema({"type": ["string", "integer"]})] = "1"
    """Processes that receive, decode, draw and answer, beside one with the backbone; auto: by cores and device. 1: one
    process for all. More need Linux, and connections: each belongs to one front."""
    engine: str | None = Field(default=None, pattern=r"^(unix:.+|.+:[0-9]{1,5})$", examples=["HOST:PORT", "unix:PATH"])
    """Engine of another machine, which `patchserve-server engine` runs, as HOST:PORT or unix:PATH: this server is its
    fronts only, and the settings of model and references are those of the engine. Needs Linux."""
    engine_tls_ca: _UserPath | None = None
    """PEM file with the authorities that sign the certificate of --engine. Reloaded when it changes."""
    engine_tls_cert: _UserPath | None = None
    """PEM file with the certificate that shows --engine who we are; its --tls-client-ca signs it. Reloaded when it
    changes."""
    engine_tls_key: _UserPath | None = None
    """PEM file with the key of --engine-tls-cert, without a passphrase. Reloaded when it changes."""
    drain_delay_s: Annotated[float, AT_RUN_TIME] = Field(default=1.0, ge=0)
    """How long a stopping server accepts calls after its health turned to NOT_SERVING, in seconds."""
    drain_grace_s: Annotated[float, AT_RUN_TIME] = Field(default=30.0, ge=0)
    """How long accepted work may take after that, in seconds."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AT_RUN_TIME] = "info"
    """Lowest level of messages that are logged to standard error."""
    log_calls: Annotated[Literal["all", "failed"], AT_RUN_TIME] = "all"
    """Which calls have a line in the log at level info: all, or those that fail or change a reference. Of callers whose
    calls fail all the time, some lines and a number."""
    log_frames: int = Field(default=100, ge=0)
    """Of each stream, the first frame and then every n-th has a line too; 0: none."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """Lines of the log: JSON, or text for people. auto: text on a terminal, else JSON."""
    otel: bool = False
    """Send traces, and the durations of calls, by OTLP (OpenTelemetry), as the variables OTEL_* say. Needs the extra
    otel."""

    @property
    def store_folder(self) -> Path | None:
        """The folder that keeps references; None: none does."""
        return None if self.store is None or self.store_url is not None else Path(self.store)

    @property
    def store_url(self) -> str | None:
        """The URL of the store that servers share; None: it is not shared."""
        return self.store if self.store is not None and is_url(self.store) else None
