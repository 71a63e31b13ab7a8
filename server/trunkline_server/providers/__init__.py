"""Every provider by kind: dialect, usual address and key variable, authentication, capabilities.

A provider that speaks a known dialect is a row of data (`compatible.ROWS`); `KINDS` joins them with those that have a
dialect of their own. A row is looked up once, when the configuration is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from trunkline_server.embedded import Endpoint
from trunkline_server.providers import aws, fake
from trunkline_server.providers.anthropic import ANTHROPIC
from trunkline_server.providers.base import Dialect
from trunkline_server.providers.bedrock import BEDROCK_DIALECTS, BEDROCK_ROWS
from trunkline_server.providers.cohere import COHERE
from trunkline_server.providers.compatible import ROWS
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages, VertexAnthropic
from trunkline_server.providers.dialects.cohere_chat import CohereChat
from trunkline_server.providers.dialects.gemini import Gemini, VertexGemini
from trunkline_server.providers.dialects.ollama_chat import OllamaChat
from trunkline_server.providers.dialects.openai_chat import OpenAIChat
from trunkline_server.providers.dialects.openai_responses import OpenAIResponses
from trunkline_server.providers.google import GEMINI, VERTEX
from trunkline_server.providers.http import HttpTimeouts
from trunkline_server.providers.http import Upstream as HttpUpstream
from trunkline_server.providers.local import LocalUpstream
from trunkline_server.providers.ollama import OLLAMA_NATIVE
from trunkline_server.providers.provider import Provider, Upstream
from trunkline_server.providers.responses import RESPONSES_ROWS
from trunkline_server.providers.row import Row

#: Kinds of providers by name. A configured provider's kind is one of these.
KINDS: Mapping[str, Row] = {
    **ROWS,
    **BEDROCK_ROWS,
    **RESPONSES_ROWS,
    "anthropic": ANTHROPIC,
    "cohere": COHERE,
    "gemini": GEMINI,
    "ollama-native": OLLAMA_NATIVE,
    "vertex": VERTEX,
}

DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    **BEDROCK_DIALECTS,
    "anthropic_messages": AnthropicMessages,
    "cohere_chat": CohereChat,
    "gemini": Gemini,
    "ollama_chat": OllamaChat,
    "openai_chat": OpenAIChat,
    "openai_responses": OpenAIResponses,
    "vertex_anthropic": VertexAnthropic,
    "vertex_gemini": VertexGemini,
}

FAKE = "fake"

#: The embedded model is llama.cpp with a model that knows neither tools nor pictures.
_EMBEDDED = dataclasses.replace(
    ROWS["llamacpp"].capabilities,
    params=(ROWS["llamacpp"].capabilities.params or frozenset()) - {"parallel_tool_calls", "reasoning"},
    tools=False,
    parallel_tools=False,
    tool_choice=False,
    images=False,
    documents=False,
    audio=False,
    reasoning=False,
    embeddings=True,
)


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """A provider to build. Times in seconds."""

    name: str
    kind: str
    base_url: str | None = None
    #: Key by credential name; "" is the provider's own, an empty key means none.
    keys: Mapping[str, str] = field(default_factory=lambda: {"": ""}, repr=False)
    #: What its kind is told beside the key: `Row.settings`.
    settings: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    connect: float = 10.0
    first_token: float | None = None
    idle: float = 720.0
    total_unary: float = 900.0
    total_stream: float = 1800.0
    ca_file: str | None = None
    max_connections: int = 2000
    models: Sequence[str] = ()
    #: Requests carry the W3C headers of the call's trace.
    propagates: bool = False


def usual_keys() -> Iterator[tuple[str, str]]:
    """Kinds that are there without a configuration, each with the environment variable that holds its key.

    Of the kinds that have one key, this is one: two would list every model twice.
    """
    for kind, row in KINDS.items():
        if row.key_env and not row.beside:
            yield kind, row.key_env


def usual_key(kind: str) -> str:
    """The environment variable that usually holds the kind's key; "" if there is none."""
    row = KINDS.get(kind)
    return row.key_env if row is not None else ""


def settings_from(kind: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Settings of the kind that the environment holds."""
    row = KINDS.get(kind)
    found = {
        name: next((environ[variable] for variable in setting.env if environ.get(variable)), setting.default)
        for name, setting in (row.settings.items() if row is not None else ())
    }
    return {name: value for name, value in found.items() if value}


def secrets_of(keys: Iterable[str]) -> list[str]:
    """What must never be shown."""
    return [secret for key in keys for secret in aws.secrets_in(key)]


def build(options: ProviderOptions) -> Provider:
    """Raises ValueError that says what is wrong with the options."""
    if options.kind == FAKE:
        dialect: Dialect = OpenAIChat()
        return Provider(
            name=options.name,
            kind=FAKE,
            dialect=dialect,
            upstreams={"": fake.FakeUpstream()},
            capabilities=lambda model: fake.CAPABILITIES,
            models=fake.MODELS,
            total_unary=options.total_unary,
            total_stream=options.total_stream,
            first_token=options.first_token,
        )
    row = KINDS.get(options.kind)
    if row is None:
        known = ", ".join(sorted([*KINDS, FAKE]))
        raise ValueError(f"no kind of provider {options.kind!r}; set `kind` to one of: {known}")
    unknown = sorted(options.settings.keys() - row.settings.keys())
    if unknown:
        takes = ", ".join(sorted(row.settings)) or "none"
        raise ValueError(f"no such settings: {', '.join(unknown)}; a provider of kind {options.kind!r} takes {takes}")
    row = row.configured(options.settings)
    base_url = options.base_url or row.address(options.settings)
    if not base_url:
        raise ValueError(f"a provider of kind {options.kind!r} has no usual address: set base_url")
    timeouts = HttpTimeouts(connect=options.connect, idle=options.idle)

    def upstream(key: str, address: str) -> Upstream:
        return HttpUpstream(
            f"{address}?{urlencode(row.query)}" if row.query else address,
            headers={**row.headers, **row.authorization(key), **options.headers},
            timeouts=timeouts,
            max_connections=options.max_connections,
            ca_file=options.ca_file,
            authorizer=row.authorizer(key, options.settings, address),
            propagates=options.propagates,
        )

    upstreams = {credential: upstream(key, base_url) for credential, key in options.keys.items()}
    listing = "" if options.base_url else row.listing_address(options.settings)
    dialects = {name: DIALECTS[name]() for name in (row.dialect, *(tongue.dialect for tongue in row.tongues))}

    def choose(model: str) -> tuple[Dialect, str]:
        tongue = row.tongue_of(model)
        return dialects[tongue.dialect], tongue.origin or options.kind

    return Provider(
        name=options.name,
        kind=options.kind,
        dialect=dialects[row.dialect],
        choose=choose if row.tongues else None,
        upstreams=upstreams,
        capabilities=row.capabilities_of,
        lister=upstream(options.keys.get("", ""), listing) if listing else None,
        models=tuple(options.models),
        total_unary=options.total_unary,
        total_stream=options.total_stream,
        first_token=options.first_token,
    )


def build_local(name: str, endpoint: Endpoint) -> Provider:
    """The embedded model."""
    return Provider(
        name=name,
        kind="local",
        dialect=OpenAIChat(),
        upstreams={"": LocalUpstream(endpoint)},
        capabilities=lambda model: _EMBEDDED,
        models=(endpoint.model,),
    )
