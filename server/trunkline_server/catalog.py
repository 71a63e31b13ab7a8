"""Models that can be called: the configuration's aliases and what the providers list, cached."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline.v1 import model_service_pb2 as pb
from trunkline.v1alpha import route_pb2
from trunkline_server import prices
from trunkline_server.call import Call, Cause
from trunkline_server.engine import Engine
from trunkline_server.errors import GatewayError, InvalidRequest, LLMError, LLMTimeoutError, ModelNotFound, Violation
from trunkline_server.estimate import prompt_tokens
from trunkline_server.exchange import exchange, refuse_unsupported
from trunkline_server.providers.assembly import timestamp
from trunkline_server.providers.base import (
    Capabilities,
    CountingDialect,
    ListedModel,
    ListingDialect,
    Notes,
    PagedListingDialect,
    UpstreamRequest,
)
from trunkline_server.providers.prepare import prepared
from trunkline_server.providers.provider import Provider
from trunkline_server.routing.attempts import Try
from trunkline_server.routing.table import Candidate

#: Seconds that a provider's list is kept.
KEPT = 300.0
#: Seconds that a provider has to list its models.
PATIENCE = 10.0

_CAPABILITIES: tuple[tuple[str, pb.Capability.ValueType], ...] = (
    ("streaming", pb.CAPABILITY_STREAMING),
    ("tools", pb.CAPABILITY_TOOLS),
    ("parallel_tools", pb.CAPABILITY_PARALLEL_TOOLS),
    ("json_schema", pb.CAPABILITY_JSON_SCHEMA),
    ("reasoning", pb.CAPABILITY_REASONING),
    ("logprobs", pb.CAPABILITY_LOGPROBS),
    ("choices", pb.CAPABILITY_MULTIPLE_CHOICES),
    ("prompt_cache", pb.CAPABILITY_PROMPT_CACHE),
    ("token_count", pb.CAPABILITY_TOKEN_COUNT),
    ("embeddings", pb.CAPABILITY_EMBEDDINGS),
)


@dataclass(slots=True)
class Catalog:
    """Lists models and counts tokens on the engine's providers."""

    engine: Engine
    _lists: dict[str, tuple[float, Provider, list[ListedModel]]] = field(default_factory=dict)

    async def models(self, call: Call, only: str = "") -> tuple[list[pb.Model], list[pb.UnlistedProvider]]:
        """All models, by provider and then as the provider lists them, and the providers that could not be asked.

        A broken provider hides no other; if it is the only one that was asked for, its error is raised. Raises
        InvalidRequest for a provider that is not configured.
        """
        if only and only not in self.engine.providers:
            known = ", ".join(sorted(self.engine.providers)) or "none"
            text = f"no provider {only!r}: the configured providers are {known}"
            raise InvalidRequest(f"provider: {text}", violations=[Violation("provider", text)])
        with self.engine.table as table:
            providers = sorted(
                (p for p in table.providers.values() if not only or p.name == only), key=lambda p: p.name
            )
            lists = await asyncio.gather(*(self._listed(provider, call) for provider in providers))
        models: list[pb.Model] = []
        unlisted = []
        for provider, found in zip(providers, lists, strict=True):
            if isinstance(found, GatewayError):
                if only:
                    raise found
                unlisted.append(pb.UnlistedProvider(provider=provider.name, reason=found.reason))
                found_here: list[ListedModel] = []
            else:
                found_here = found
            models.extend(self._model(provider, listed) for listed in self._with_aliased(provider, found_here))
        return models, unlisted

    async def model(self, call: Call, name: str) -> pb.Model:
        """One model. Raises ModelNotFound for one that its provider does not list."""
        with self.engine.table as table:
            candidate = table.resolve(name).candidates[0]
            provider = candidate.provider
            listed = await self._listed(provider, call)
        if isinstance(listed, GatewayError):
            raise listed
        for found in self._with_aliased(provider, listed):
            if candidate.model in (found.id, found.name):
                return self._model(provider, found)
        raise ModelNotFound(f"provider {provider.name!r} lists no model {candidate.model!r}", resource=("model", name))

    async def count(
        self, call: Call, spec: completion_pb2.CompletionSpec, options: completion_pb2.CallOptions
    ) -> completion_service_pb2.CountTokensResponse:
        """Tokens of a prompt: the provider's count where it has one, an estimate elsewhere."""

        async def attempt(candidate: Candidate, cause: Cause) -> completion_service_pb2.CountTokensResponse:
            return await _count(call, candidate, cause, spec, options)

        return await self.engine.run(call, spec.model or spec.config, options, spec.labels, attempt)

    async def _listed(self, provider: Provider, call: Call) -> list[ListedModel] | GatewayError:
        known = [ListedModel(name) for name in provider.models]
        dialect = provider.dialect
        if provider.models or not isinstance(dialect, ListingDialect):
            return known
        kept = self._lists.get(provider.name)
        if kept is not None and kept[1] is provider and time.monotonic() - kept[0] < KEPT:
            return kept[2]
        try:
            async with asyncio.timeout(PATIENCE):
                listed = await _all_listed(provider, dialect, call)
        except TimeoutError:
            late = LLMTimeoutError(f"the provider did not list its models within {PATIENCE:g} s")
            late.provider = provider.name
            return late
        except GatewayError as error:
            if isinstance(error, LLMError):
                error.provider = provider.name
            return error
        self._lists[provider.name] = (time.monotonic(), provider, listed)
        return listed

    def _model(self, provider: Provider, listed: ListedModel) -> pb.Model:
        name = listed.name or listed.id
        capabilities = provider.capabilities(name)
        makes = _makes(listed, prices.makes(provider.kind, name), capabilities)
        model = pb.Model(
            name=f"{provider.name}/{name}",
            display_name=listed.display_name,
            provider=provider.name,
            provider_model=listed.id,
            aliases=self._aliases(provider, listed),
            capabilities=_names(capabilities, listed, makes),
            input_modalities=_modalities(listed.inputs) or _inputs(capabilities, listed),
            output_modalities=_modalities(makes or _TEXT),
        )
        window = listed.context_window_tokens or prices.context_window(provider.kind, name)
        if window:
            model.context_window_tokens = window
        most = listed.max_output_tokens or capabilities.max_output_tokens
        if most:
            model.max_output_tokens = most
        if listed.created:
            model.create_time.CopyFrom(timestamp(listed.created))
        if listed.ends:
            model.deprecation_time.CopyFrom(timestamp(listed.ends))
        pricing = prices.pricing(provider.kind, name)
        if pricing is not None:
            model.pricing.CopyFrom(pricing)
        return model

    def _with_aliased(self, provider: Provider, listed: list[ListedModel]) -> list[ListedModel]:
        """What the provider lists, and what aliases lead to beyond that."""
        known = {name for model in listed for name in (model.id, model.name)}
        led_to = {target.model.partition("/")[2] for _, target in self._led(provider)}
        return [*listed, *(ListedModel(name) for name in sorted(led_to - known))]

    def _aliases(self, provider: Provider, listed: ListedModel) -> list[str]:
        wanted = {f"{provider.name}/{listed.id}", f"{provider.name}/{listed.name}"}
        return sorted({alias for alias, target in self._led(provider) if target.model in wanted})

    def _led(self, provider: Provider) -> Iterator[tuple[str, route_pb2.RouteTarget]]:
        """Names of the configuration that lead to the provider, and the target that does; no patterns."""
        for name, route in self.engine.table.routes.items():
            for target in route.targets:
                if target.model.startswith(f"{provider.name}/") and not name.endswith("*"):
                    yield name, target


async def _count(
    call: Call,
    candidate: Candidate,
    cause: Cause,
    spec: completion_pb2.CompletionSpec,
    options: completion_pb2.CallOptions,
) -> completion_service_pb2.CountTokensResponse:
    """One attempt at a count. Asks nobody where the provider does not count."""
    target, dialect = candidate.target, candidate.dialect
    call.provider, call.model = target.provider, target.model
    answer = completion_service_pb2.CountTokensResponse(provider=target.provider, model=target.model)
    spec = prepared(spec, candidate.defaults)
    if not isinstance(dialect, CountingDialect) or not target.capabilities.token_count:
        answer.input_tokens = prompt_tokens(spec)
        answer.source = completion_pb2.USAGE_SOURCE_ESTIMATED
        return answer
    notes = Notes()
    request = dialect.encode_count(spec, target, notes)
    refuse_unsupported(notes, options)
    async with Try(call, candidate, cause) as trying:
        reply = await exchange(call, trying.attempt, candidate, request)
        answer.input_tokens = dialect.decode_count(reply.body)
    answer.source = completion_pb2.USAGE_SOURCE_REPORTED
    return answer


async def _all_listed(provider: Provider, dialect: ListingDialect, call: Call) -> list[ListedModel]:
    """What the provider lists, page by page, as long as a page has anything new."""
    upstream = provider.lister or provider.upstreams[""]
    request: UpstreamRequest | None = dialect.models_request()
    listed: list[ListedModel] = []
    while request is not None:
        reply = await upstream.send(request, call.forward)
        if not 200 <= reply.status < 300:
            raise provider.dialect.classify(reply.status, reply.headers, reply.body)
        page = dialect.decode_models(reply.body)
        known = {model.id for model in listed}
        new = [model for model in page if model.id not in known]
        listed.extend(new)
        if not new or not isinstance(dialect, PagedListingDialect):
            break
        request = dialect.next_models_request(request, reply.body)
    return listed


#: Names of models that make vectors, where nobody says what a model makes.
_VECTORS = re.compile(r"embed|\b(voyage|bge|gte|e5)-|text-search|text-similarity", re.IGNORECASE)
_EMBEDDING, _TEXT = frozenset({"EMBEDDING"}), frozenset({"TEXT"})


def _makes(listed: ListedModel, paid_for: frozenset[str], capabilities: Capabilities) -> frozenset[str]:
    """What the model makes: as its provider says, by its name, as its prices tell; empty if nobody knows."""
    by_name = _EMBEDDING if capabilities.embeddings and _VECTORS.search(listed.id) else frozenset[str]()
    return listed.outputs or by_name or paid_for


def _names(capabilities: Capabilities, listed: ListedModel, makes: frozenset[str]) -> Sequence[pb.Capability.ValueType]:
    """What the gateway can ask for, as far as its provider does not say that the model cannot."""
    if makes == _EMBEDDING:
        return [pb.CAPABILITY_EMBEDDINGS] if capabilities.embeddings else []
    told = {"embeddings": "EMBEDDING" in makes, **listed.can} if makes else listed.can
    return [value for name, value in _CAPABILITIES if getattr(capabilities, name) and told.get(name, True)]


def _modalities(names: frozenset[str]) -> Sequence[pb.Modality.ValueType]:
    return sorted(pb.Modality.Value(f"MODALITY_{name}") for name in names)


def _inputs(capabilities: Capabilities, listed: ListedModel) -> Sequence[pb.Modality.ValueType]:
    found = [pb.MODALITY_TEXT]
    for name, modality in _INPUTS:
        if getattr(capabilities, name) and listed.can.get(name, True):
            found.append(modality)
    return found


#: Fields of Capabilities, and what a model with them reads.
_INPUTS: tuple[tuple[str, pb.Modality.ValueType], ...] = (
    ("images", pb.MODALITY_IMAGE),
    ("audio", pb.MODALITY_AUDIO),
    ("documents", pb.MODALITY_DOCUMENT),
)
