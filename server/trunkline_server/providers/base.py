"""The seam between the engine and the providers.

A dialect is a wire format and nothing else: it turns a spec into bytes and bytes into an assembly, holds no I/O and
keeps no state between calls, so that it runs over recordings without a server. A provider is a dialect with a base
URL, an authentication and data about what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from trunkline.v1 import completion_pb2, embedding_service_pb2, message_pb2
from trunkline_server.errors import LLMError, Violation
from trunkline_server.providers.assembly import Assembly

Q = TypeVar("Q")

#: What a parameter that cannot be honoured is reported as.
DROPPED = "PARAMETER_DROPPED"
ALTERED = "PARAMETER_ALTERED"
FOREIGN = "FOREIGN_DATA_DROPPED"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a stream, as framed on the wire. There are many: this costs a sixth of a frozen dataclass."""

    #: The event's name; b"" where it has none. BARE marks a line that belongs to no event, such as a lone JSON object.
    name: bytes
    data: bytes


#: Name of an `Event` whose data is a line outside the stream's framing.
BARE = b"\x00bare"

#: Beginning of the name of an `Event` that is an exception, in a framing that has such; its type follows.
EXCEPTION = b"\x00exception:"


class Notes:
    """Collects what a provider cannot be given while a request is encoded.

    The engine refuses the call or warns the caller with it, as `CallOptions.on_unsupported` says.
    """

    __slots__ = ("foreign", "unsupported")

    def __init__(self) -> None:
        #: Parameters that cannot be honoured: (warning reason, field path in CompletionSpec, description).
        self.unsupported: list[tuple[str, str, str]] = []
        #: Remarks, and data of another provider that was left out: never a reason to refuse.
        self.foreign: list[tuple[str, str, str]] = []

    def dropped(self, path: str, description: str) -> None:
        """The parameter is left out, e.g. dropped("params.top_k", "openai has no top_k")."""
        self.unsupported.append((DROPPED, path, description))

    def altered(self, path: str, description: str) -> None:
        """The parameter is sent, but not as it was asked."""
        self.unsupported.append((ALTERED, path, description))

    def remark(self, path: str, description: str) -> None:
        """What was asked is sent in another form: never a reason to refuse."""
        self.foreign.append((ALTERED, path, description))

    def foreign_data(self, path: str, origin: str) -> None:
        """A signature, ciphertext or opaque block of `origin` is not sent to another provider."""
        self.foreign.append((FOREIGN, path, f"made by {origin!r}, which is not the provider called"))

    def violations(self) -> list[Violation]:
        return [Violation(f"spec.{path}", description) for _, path, description in self.unsupported]

    def warnings(self) -> list[completion_pb2.Warning]:
        return [
            completion_pb2.Warning(reason=reason, field=path, message=description)
            for reason, path, description in (*self.unsupported, *self.foreign)
        ]


@dataclass(frozen=True, slots=True)
class Prefill:
    """How a model is asked to go on from the beginning of its answer, which is sent as the last message.

    Without the white space at its end: some refuse that, and to others a word with a space before it is one token.
    """

    #: Members of that message, and of the body, beyond the usual ones.
    message: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] = field(default_factory=dict)
    #: The answer begins with what was sent.
    echoes: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model at a provider can be asked for: data, by provider row and model pattern."""

    #: Fields of GenerationParams that it takes, by name, e.g. "top_k". None: all that the dialect knows.
    params: frozenset[str] | None = None
    tools: bool = True
    parallel_tools: bool = True
    tool_choice: bool = True
    json_schema: bool = True
    images: bool = True
    documents: bool = True
    audio: bool = False
    reasoning: bool = False
    logprobs: bool = True
    choices: bool = True
    prompt_cache: bool = False
    streaming: bool = True
    embeddings: bool = False
    #: Most inputs of one embedding request; None: as many as the provider takes of any.
    embedding_batch: int | None = None
    token_count: bool = False
    #: None: it cannot be asked to go on from the beginning of an answer.
    prefill: Prefill | None = None
    #: Most tokens that the model generates, where known.
    max_output_tokens: int | None = None
    #: Differences of the wire that only the provider's dialect reads, e.g. {"max_tokens_field": "max_tokens"}.
    quirks: Mapping[str, object] = field(default_factory=dict)

    def quirk(self, key: str, default: Q) -> Q:
        """The quirk with this key, if there is one of the default's type."""
        found = self.quirks.get(key)
        return found if isinstance(found, type(default)) else default


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes."""

    #: Name of the provider in the configuration, e.g. "openai-eu".
    provider: str
    #: What kind of provider it is, e.g. "openai": the origin of the signatures and opaque blocks it makes.
    origin: str
    #: The provider's own model id.
    model: str
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to send. Authentication, content type and forwarded headers are added outside."""

    #: Appended to the provider's base URL, e.g. "/chat/completions".
    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"


class Decoder(Protocol):
    """Decodes one stream into its assembly."""

    def event(self, event: Event) -> None:
        """Takes the next event. Raises LLMError: an error inside the stream, or an event that cannot be read."""

    def end(self) -> None:
        """The stream ended. Raises LLMConnectionError unless every choice has its finish reason."""


class Dialect(Protocol):
    """A wire format. Pure: bytes in, bytes out; nothing of the caller's is changed."""

    #: Name, e.g. "openai_chat".
    name: str
    #: How its streams are framed: a key of `providers.framing.FRAMINGS`.
    framing: str

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        """Encodes a spec that passed validation. What the target cannot honour goes to `notes`."""

    def decode(self, body: bytes, assembly: Assembly) -> None:
        """Decodes a whole answer. Raises LLMError: an error in a 200, or an answer that cannot be read."""

    def decoder(self, assembly: Assembly) -> Decoder:
        """Begins to decode a stream."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        """Maps an answer that is not a success. Never raises. `headers` has lower-case names."""


@runtime_checkable
class EmbeddingDialect(Protocol):
    """A dialect that can embed."""

    def encode_embeddings(
        self,
        spec: embedding_service_pb2.EmbeddingSpec,
        inputs: Sequence[embedding_service_pb2.EmbeddingInput],
        target: Target,
        notes: Notes,
    ) -> UpstreamRequest:
        """Encodes one batch of inputs."""

    def decode_embeddings(self, body: bytes) -> Vectors:
        """Decodes one batch. Raises LLMError."""


@runtime_checkable
class CountingDialect(Protocol):
    """A dialect whose provider counts the tokens of a prompt."""

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        """Encodes the question."""

    def decode_count(self, body: bytes) -> int:
        """Input tokens. Raises LLMError."""


@runtime_checkable
class ListingDialect(Protocol):
    """A dialect whose provider lists its models."""

    def models_request(self) -> UpstreamRequest:
        """The question."""

    def decode_models(self, body: bytes) -> list[ListedModel]:
        """The models in the provider's order. Raises LLMError."""


@runtime_checkable
class PagedListingDialect(ListingDialect, Protocol):
    """A dialect whose provider does not list all of its models at once."""

    def next_models_request(self, request: UpstreamRequest, body: bytes) -> UpstreamRequest | None:
        """What to ask after this request has been answered so; None: nothing more."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """One batch of embeddings, in the order of its inputs."""

    vectors: list[list[float]]
    #: As the provider reported it; "" if it did not.
    model: str
    usage: completion_pb2.Usage | None


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as its provider lists it."""

    id: str
    #: What callers call it, where that is shorter than its id.
    name: str = ""
    display_name: str = ""
    #: Unix seconds.
    created: float | None = None
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    #: Kinds of content that it reads and makes, as Modality names them; empty: the provider does not say.
    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    #: Fields of Capabilities of which the provider says whether the model can.
    can: Mapping[str, bool] = field(default_factory=dict)
    #: Unix seconds at which the provider ends it.
    ends: float | None = None


def part_is_foreign(part: message_pb2.ContentPart, target: Target) -> bool:
    """Was the part's signature, ciphertext or opaque block made by another provider than the target?"""
    return part.HasField("origin_provider") and part.origin_provider != target.origin
