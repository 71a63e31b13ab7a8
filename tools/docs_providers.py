"""The tables of docs/providers.md, from `providers.KINDS`, the capabilities of models, and what encoders take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tests.fidelity import mismatches
from tools.docs_tables import code, codes, table

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server import prices, providers
from trunkline_server.embedded import Endpoint
from trunkline_server.providers import fake
from trunkline_server.providers.base import Capabilities, Dialect, ListingDialect, Notes, Target
from trunkline_server.providers.provider import Provider
from trunkline_server.providers.row import Row

CompletionSpec = completion_pb2.CompletionSpec

#: Heading and field of Capabilities.
FEATURES: Sequence[tuple[str, str]] = (
    ("stream", "streaming"),
    ("tools", "tools"),
    ("parallel tools", "parallel_tools"),
    ("tool choice", "tool_choice"),
    ("JSON schema", "json_schema"),
    ("images", "images"),
    ("documents", "documents"),
    ("audio", "audio"),
    ("reasoning", "reasoning"),
    ("logprobs", "logprobs"),
    ("several choices", "choices"),
    ("cache marks", "prompt_cache"),
    ("token count", "token_count"),
    ("embeddings", "embeddings"),
    ("goes on", "prefill"),
)

#: A model that nothing is known of.
UNKNOWN = "some-model"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of provider, and some of its models."""

    name: str
    #: None: it has no address.
    row: Row | None
    models: tuple[str, ...]

    def target(self, model: str) -> Target:
        if self.row is None:
            return _without_address(self.name).target(model)
        origin = self.row.tongue_of(model).origin or self.name
        return Target(self.name, origin, model, self.row.capabilities_of(model))

    def dialect(self, model: str) -> Dialect:
        if self.row is None:
            return _without_address(self.name).dialect_for(model)
        return _dialect(self.row.tongue_of(model).dialect)

    def capabilities(self, model: str) -> Capabilities:
        return self.target(model).capabilities


def kinds() -> Iterator[Kind]:
    """By name; the two that need no address last."""
    for name, row in sorted(providers.KINDS.items()):
        yield Kind(name, row, (UNKNOWN, *prices.known_models(name)))
    yield Kind("local", None, (UNKNOWN,))
    yield Kind(providers.FAKE, None, fake.MODELS)


@lru_cache
def _without_address(name: str) -> Provider:
    if name == providers.FAKE:
        return providers.build(providers.ProviderOptions(name, providers.FAKE))
    return providers.build_local(name, Endpoint("/nowhere", "", UNKNOWN))


@lru_cache
def _dialect(name: str) -> Dialect:
    return providers.DIALECTS[name]()


def takes(kind: Kind, model: str, spec: CompletionSpec) -> bool:
    """Does the encoder send all that the spec asks for?"""
    notes = Notes()
    kind.dialect(model).encode(spec, kind.target(model), notes, stream=False)
    return not notes.unsupported


def asked(model: str = UNKNOWN) -> CompletionSpec:
    """The least that can be asked."""
    spec = CompletionSpec(model=model)
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "Hello."
    return spec


def with_param(name: str) -> CompletionSpec:
    """A spec with one field of GenerationParams, at a value that is no default."""
    spec = asked()
    params = spec.params
    field = generation_pb2.GenerationParams.DESCRIPTOR.fields_by_name[name]
    if name == "reasoning":
        params.reasoning.effort = generation_pb2.REASONING_EFFORT_HIGH
    elif name == "logit_bias":
        params.logit_bias["7"] = 1.0
    elif name == "stop_sequences":
        params.stop_sequences.append("END")
    elif name == "parallel_tool_calls":
        spec.tools.add().function.name = "f"
        params.parallel_tool_calls = False
    elif field.cpp_type == field.CPPTYPE_STRING:
        setattr(params, name, "flex")
    else:
        # Whole numbers must be two at least for `n`; the rest takes a half.
        setattr(params, name, 0.5 if field.cpp_type == field.CPPTYPE_DOUBLE else _WHOLE.get(name, 2))
    return spec


_WHOLE = {"logprobs": True, "max_output_tokens": 100}


def blocks() -> Mapping[str, str]:
    every = list(kinds())
    return {
        "features": table(["kind", *(heading for heading, _ in FEATURES), "lists models"], map(_features, every)),
        "parameters": table(["kind", "all models", "some models", "none"], map(_parameters, every)),
        "addresses": table(["kind", "dialect", "usual address", "key variable", "sent as"], map(_address, every)),
        "settings": table(["kind", "setting", "meaning", "usual variables", "default"], _settings(every)),
        "mismatches": table(["family", "recording", "what differs", "why it stays"], map(_mismatch, mismatches.KNOWN)),
    }


def _share(answers: Iterable[bool]) -> str:
    found = set(answers)
    return "some" if len(found) > 1 else ("yes" if True in found else "–")


def _features(kind: Kind) -> list[str]:
    capabilities = [kind.capabilities(model) for model in kind.models]
    return [
        code(kind.name),
        *(_share(bool(getattr(each, field)) for each in capabilities) for _, field in FEATURES),
        _share([isinstance(kind.dialect(UNKNOWN), ListingDialect)]),
    ]


def _parameters(kind: Kind) -> list[str]:
    shares: dict[str, list[str]] = {"yes": [], "some": [], "–": []}
    for field in generation_pb2.GenerationParams.DESCRIPTOR.fields:
        spec = with_param(field.name)
        shares[_share(takes(kind, model, spec) for model in kind.models)].append(field.name)
    return [code(kind.name), *map(codes, shares.values())]


def _address(kind: Kind) -> list[str]:
    row = kind.row
    if row is None:
        where = "a process beside the server" if kind.name == "local" else "inside the server"
        return [code(kind.name), code(kind.dialect(UNKNOWN).name), where, "–", "–"]
    others = [f"{code(tongue.dialect)} for {code(tongue.pattern)}" for tongue in row.tongues]
    sent = codes(row.authorization("KEY"))
    if type(row).authorizer is not Row.authorizer:
        sent = "made for each request"
    return [
        code(kind.name),
        ", ".join([code(row.dialect), *others]),
        _usual(row),
        codes(filter(None, [row.key_env])),
        sent,
    ]


def _usual(row: Row) -> str:
    if row.base_url:
        return row.base_url
    try:
        return row.address({name: name.upper() for name in row.settings}) or "`base_url` says"
    except ValueError:
        return "by its settings"


def _mismatch(known: mismatches.Mismatch) -> list[str]:
    return [code(known.family), code(known.recording), known.differs, known.reason]


def _settings(every: Sequence[Kind]) -> Iterator[list[str]]:
    for kind in every:
        for name, setting in (kind.row.settings if kind.row else {}).items():
            default = code(setting.default) if setting.default else "–"
            yield [code(kind.name), code(name), setting.about, codes(setting.env), default]
