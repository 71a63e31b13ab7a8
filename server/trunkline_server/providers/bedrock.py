"""AWS Bedrock: Converse, InvokeModel with the models' own wires, and the endpoints that are compatible with OpenAI."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from trunkline_server.providers import aws
from trunkline_server.providers.auth import Authorizer
from trunkline_server.providers.base import Capabilities, Dialect
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages
from trunkline_server.providers.dialects.bedrock_converse import BedrockConverse, capabilities
from trunkline_server.providers.dialects.openai_chat import OpenAIChat
from trunkline_server.providers.dialects.openai_chat import quirks as chat
from trunkline_server.providers.dialects.openai_responses import quirks as responses
from trunkline_server.providers.invoke import Envelope, InvokeModel
from trunkline_server.providers.row import ModelRule, Row, Setting, Tongue

_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
#: Hosts that the credentials of the machine are for.
_AWS = re.compile(r"(^|\.)(amazonaws\.com(\.cn)?|api\.aws)$")

_SETTINGS: Mapping[str, Setting] = {
    "region": Setting("the AWS region, e.g. eu-central-1", ("AWS_REGION", "AWS_DEFAULT_REGION")),
    "profile": Setting("a profile of ~/.aws/config", ("AWS_PROFILE",)),
    "role_arn": Setting("a role to assume with the credentials that are found"),
}


@dataclass(frozen=True, slots=True, eq=False)
class BedrockRow(Row):
    """A host of a region. Its key is one of Bedrock's own, or a pair of AWS; without one, the machine's credentials."""

    #: What signatures are for.
    service: str = "bedrock"
    #: Where models are listed, if that is elsewhere.
    control: str = ""

    def address(self, settings: Mapping[str, str]) -> str:
        return _placed(self.base_url, settings)

    def listing_address(self, settings: Mapping[str, str]) -> str:
        return _placed(self.control, settings) if self.control else ""

    def authorization(self, key: str) -> dict[str, str]:
        return {} if aws.PAIR.fullmatch(key) else Row.authorization(self, key)

    def authorizer(self, key: str, settings: Mapping[str, str], base_url: str) -> Authorizer | None:
        pair = aws.pair_of(key)
        profile, role = settings.get("profile", ""), settings.get("role_arn", "")
        if pair is None and (key or not (role or _AWS.search(urlsplit(base_url).hostname or ""))):
            return None
        region = _region(settings)
        fetch = (lambda: pair) if pair is not None else aws.Chain(region=region, profile=profile, role=role)
        return aws.SigV4(fetch, region=region, service=self.service)


@dataclass(frozen=True, slots=True, eq=False)
class FoundationRow(BedrockRow):
    """A row whose models are told apart by Converse's table, however they are spoken to."""

    def authorizer(self, key: str, settings: Mapping[str, str], base_url: str) -> Authorizer | None:
        # The framing of streams needs it, whatever the key.
        aws.require()
        return BedrockRow.authorizer(self, key, settings, base_url)

    def capabilities_of(self, model: str) -> Capabilities:
        return _foundation(model)


@dataclass(frozen=True, slots=True, eq=False)
class InvokeRow(FoundationRow):
    """A row whose models are spoken to in their own wires; those whose wires are nobody else's, through Converse."""

    def capabilities_of(self, model: str) -> Capabilities:
        found = _foundation(model)
        if self.tongue_of(model).dialect != "bedrock_invoke_chat":
            return found
        return dataclasses.replace(_CHAT, images=found.images, audio=found.audio)


@functools.lru_cache(maxsize=4096)
def _foundation(model: str) -> Capabilities:
    found = capabilities(model)
    batch = next((batch for pattern, batch in _EMBEDDERS if pattern.search(model)), None)
    return found if batch is None else dataclasses.replace(found, embeddings=True, embedding_batch=batch)


#: Models that embed, and how many inputs a request of theirs may have.
_EMBEDDERS = ((re.compile(r"cohere\.embed"), 96), (re.compile(r"embed"), 1))


def _region(settings: Mapping[str, str]) -> str:
    region = settings.get("region") or aws.region_of(settings.get("profile", ""))
    if not region:
        raise ValueError("Bedrock needs settings.region or AWS_REGION, e.g. eu-central-1")
    if not _REGION.fullmatch(region):
        raise ValueError(f"settings.region {region!r} is no AWS region, e.g. eu-central-1")
    return region


def _placed(address: str, settings: Mapping[str, str]) -> str:
    region = _region(settings)
    address = address.format(region=region)
    return address.replace(".amazonaws.com", ".amazonaws.com.cn") if region.startswith("cn-") else address


_RUNTIME = "https://bedrock-runtime.{region}.amazonaws.com"
_CONTROL = "https://bedrock.{region}.amazonaws.com"
_MANTLE = "https://bedrock-mantle.{region}.api.aws"
_KEY = "AWS_BEARER_TOKEN_BEDROCK"

_CHAT = Capabilities(
    params=frozenset([
        "max_output_tokens", "temperature", "top_p", "stop_sequences", "frequency_penalty", "presence_penalty", "seed",
        "reasoning", "parallel_tool_calls", "service_tier",
    ]),
    documents=False,
    audio=True,
    choices=False,
    logprobs=False,
    reasoning=True,
    quirks={chat.KEY: chat.Quirks(max_tokens="max_completion_tokens", reasoning_back="reasoning", user="")},
)  # fmt: skip

BEDROCK_ROWS: dict[str, Row] = {
    "bedrock": FoundationRow(_RUNTIME, _KEY, dialect="bedrock_converse", settings=_SETTINGS, control=_CONTROL),
    "bedrock-invoke": InvokeRow(
        _RUNTIME,
        _KEY,
        dialect="bedrock_invoke_anthropic",
        tongues=(
            # They take and give what they do at Anthropic's own API, signatures and opaque blocks included.
            Tongue(r".*\bclaude", "bedrock_invoke_anthropic", "anthropic"),
            Tongue(r".*\bamazon\.nova(?!.*embed)", "bedrock_invoke_nova"),
            Tongue(
                r".*\b((openai|qwen|moonshot|minimax|zai|google)\.|ai21\.jamba-1|deepseek\.(?!r1)"
                r"|mistral\.(?!mistral-7b|mixtral))",
                "bedrock_invoke_chat",
            ),
            Tongue(r".*\b(ai21|amazon|cohere|deepseek|meta|mistral|writer)\.", "bedrock_converse"),
        ),
        settings=_SETTINGS,
        control=_CONTROL,
        beside="bedrock",
    ),
    "bedrock-openai": BedrockRow(f"{_RUNTIME}/openai/v1", _KEY, _CHAT, settings=_SETTINGS, beside="bedrock"),
    "bedrock-mantle": BedrockRow(
        f"{_MANTLE}/v1", _KEY, _CHAT, settings=_SETTINGS, beside="bedrock", service="bedrock-mantle"
    ),
    "bedrock-responses": BedrockRow(
        f"{_MANTLE}/openai/v1",
        _KEY,
        Capabilities(
            params=frozenset(["max_output_tokens", "temperature", "top_p", "reasoning", "parallel_tool_calls"]),
            choices=False,
            logprobs=False,
            documents=False,
            reasoning=True,
            quirks={responses.KEY: responses.Quirks(plain_thoughts=True, max_tool_calls=False, user="")},
        ),
        dialect=responses.KEY,
        models=(ModelRule(r"openai\.gpt-oss", quirks={"sealed": False}),),
        settings=_SETTINGS,
        beside="bedrock",
        service="bedrock-mantle",
    ),
}

#: Dialects by name, made when they are needed.
BEDROCK_DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    "bedrock_converse": BedrockConverse,
    "bedrock_invoke_anthropic": lambda: InvokeModel(
        "bedrock_invoke_anthropic",
        AnthropicMessages(),
        Envelope({"anthropic_version": "bedrock-2023-05-31"}, header="anthropic-beta", member="anthropic_beta"),
    ),
    "bedrock_invoke_nova": lambda: InvokeModel(
        "bedrock_invoke_nova",
        BedrockConverse(),
        Envelope({"schemaVersion": "messages-v1"}, tier="serviceTier", spread="additionalModelRequestFields"),
    ),
    "bedrock_invoke_chat": lambda: InvokeModel("bedrock_invoke_chat", OpenAIChat(), Envelope()),
}
