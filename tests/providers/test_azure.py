"""Azure OpenAI: addresses by version, keys and Entra's tokens, as Azure's own client has them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, BadRequestError
from tests.providers.openai_chat_requests import USER, spec_of, text
from tests.upstream import upstream as listening

from tests import gateway
from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server import providers
from trunkline_server.errors import LLMAuthenticationError
from trunkline_server.providers import ProviderOptions
from trunkline_server.providers.azure import Identity
from trunkline_server.providers.base import Notes
from trunkline_server.providers.provider import Provider

DATED = "2024-10-21"
ENDPOINT = "https://acme.openai.azure.com"


def azure(kind: str = "azure", key: str = "k", base_url: str | None = None, **settings: str) -> Provider:
    return providers.build(ProviderOptions("a", kind, base_url=base_url, keys={"": key}, settings=settings))


@pytest.mark.parametrize("kind", ["azure", "azure-responses"])
@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"endpoint": ENDPOINT}, f"{ENDPOINT}/openai/v1"),
        ({"endpoint": f"{ENDPOINT}/"}, f"{ENDPOINT}/openai/v1"),
        ({"endpoint": f"{ENDPOINT}/openai/v1/"}, f"{ENDPOINT}/openai/v1"),
        ({"endpoint": ENDPOINT, "api_version": "preview"}, f"{ENDPOINT}/openai/v1"),
        ({"endpoint": ENDPOINT, "api_version": DATED}, f"{ENDPOINT}/openai"),
        ({"endpoint": ENDPOINT, "api_version": "2025-04-01-preview"}, f"{ENDPOINT}/openai"),
    ],
)
def test_a_dated_version_has_the_older_address_and_all_else_the_newer(
    kind: str, settings: dict[str, str], address: str
):
    assert providers.KINDS[kind].address(settings) == address


@pytest.mark.parametrize("kind", ["azure", "azure-responses"])
def test_what_is_wrong_with_the_settings_is_said_when_the_server_starts(kind: str):
    with pytest.raises(ValueError, match="AZURE_OPENAI_ENDPOINT"):
        azure(kind)
    with pytest.raises(ValueError, match=r"settings\.api_version 'yesterday'"):
        azure(kind, endpoint=ENDPOINT, api_version="yesterday")


def test_settings_come_from_the_variables_that_azures_client_reads():
    environ = {"AZURE_OPENAI_ENDPOINT": ENDPOINT, "OPENAI_API_VERSION": DATED}

    assert providers.settings_from("azure", environ) == {"endpoint": ENDPOINT, "api_version": DATED}
    assert providers.usual_key("azure") == providers.usual_key("azure-responses") == "AZURE_OPENAI_API_KEY"


@pytest.mark.parametrize("version", ["", "preview", DATED])
@pytest.mark.parametrize("what", ["chat", "stream", "embeddings", "responses", "models"])
async def test_a_request_goes_where_azures_own_client_sends_it(version: str, what: str):
    """Path, query and the header with the key."""

    async def script(exchange: Any) -> None:
        await exchange.answer({"error": "enough was seen"}, status=400)

    async with listening(script) as upstream:
        settings = {"endpoint": upstream.url, **({"api_version": version} if version else {})}
        ours = azure("azure-responses" if what == "responses" else "azure", **settings)
        await ours.upstreams[""].send(_asked(ours, what))
        await ours.aclose()
        with pytest.raises(BadRequestError):
            await _theirs(upstream.url, version, what)

    sent, theirs = upstream.exchanges
    assert sent.path == theirs.path
    assert sent.headers["api-key"] == theirs.headers["api-key"] == "k"
    assert ("api-version=" in sent.path) == bool(version)
    assert ("/deployments/gpt-4.1%20eu/" in sent.path) == (
        version == DATED and what in {"chat", "stream", "embeddings"}
    )


MODEL = "gpt-4.1 eu"


def _asked(provider: Provider, what: str) -> Any:
    target, notes = provider.target(MODEL), Notes()
    dialect: Any = provider.dialect_for(MODEL)
    if what == "embeddings":
        spec = embedding_service_pb2.EmbeddingSpec(inputs=[embedding_service_pb2.EmbeddingInput(text="hi")])
        return dialect.encode_embeddings(spec, spec.inputs, target, notes)
    if what == "models":
        return dialect.models_request()
    return dialect.encode(spec_of((USER, [text("hi")])), target, notes, stream=what == "stream")


async def _theirs(url: str, version: str, what: str) -> None:
    """The same from OpenAI's package: its client for Azure where the version has a date, its usual one elsewhere."""
    if version == DATED:
        client: AsyncOpenAI = AsyncAzureOpenAI(azure_endpoint=url, api_key="k", api_version=version, max_retries=0)
    else:
        query = {"api-version": version} if version else {}
        client = AsyncOpenAI(
            base_url=f"{url}/openai/v1", api_key="k", default_query=query, max_retries=0,
            default_headers={"api-key": "k"},
        )  # fmt: skip
    async with client:
        match what:
            case "embeddings":
                await client.embeddings.create(model=MODEL, input=["hi"])
            case "responses":
                await client.responses.create(model=MODEL, input="hi")
            case "models":
                await client.models.list()
            case _:
                message: Any = {"role": "user", "content": "hi"}
                await client.chat.completions.create(model=MODEL, messages=[message], stream=what == "stream")


async def test_an_address_of_ones_own_keeps_its_path_and_gets_the_version():
    async def script(exchange: Any) -> None:
        await exchange.answer({"error": "enough was seen"}, status=400)

    async with listening(script) as upstream:
        provider = azure(base_url=f"{upstream.url}/proxy/openai", api_version=DATED)
        await provider.upstreams[""].send(_asked(provider, "chat"))
        await provider.aclose()

    assert upstream.exchanges[0].path == f"/proxy/openai/deployments/gpt-4.1%20eu/chat/completions?api-version={DATED}"


# -- Entra ------------------------------------------------------------------------------------------------------------


class IdentityServer(ThreadingHTTPServer):
    """The endpoint that a machine of Azure's asks for its own tokens."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.asked: list[str] = []


class _TokenHandler(BaseHTTPRequestHandler):
    server: IdentityServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = json.dumps(
            {"access_token": "entra-token", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        pass


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityServer]:
    server = IdentityServer()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "made-up")
    yield server
    server.shutdown()
    server.server_close()


def test_without_a_key_the_machines_identity_is_asked_for_a_token(identity: IdentityServer):
    token = Identity("https://cognitiveservices.azure.com/.default")()

    assert token.value == "entra-token"
    assert token.expires is not None
    assert 3500 < token.expires - time.time() <= 3600
    assert "resource=https://cognitiveservices.azure.com" in identity.asked[0]


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("acme.openai.azure.com", "https://cognitiveservices.azure.com/.default"),
        ("acme.cognitiveservices.azure.us", "https://cognitiveservices.azure.us/.default"),
        ("acme.services.ai.azure.com", "https://cognitiveservices.azure.com/.default"),
    ],
)
async def test_the_token_is_one_for_the_cloud_of_the_address_and_kept(host: str, scope: str, identity: IdentityServer):
    authorizer = providers.KINDS["azure"].authorizer("", {}, f"https://{host}/openai/v1")

    assert authorizer is not None
    headers = [await authorizer.authorize("POST", f"https://{host}/", {}, b"") for _ in range(2)]
    assert headers == [{"authorization": "Bearer entra-token"}] * 2
    assert len(identity.asked) == 1
    assert scope.removesuffix("/.default").removeprefix("https://") in identity.asked[0]


def test_a_token_of_the_machine_goes_to_azure_only_and_never_beside_a_key():
    row = providers.KINDS["azure"]

    assert row.authorizer("", {}, "https://openai.azure.com.evil.test/openai/v1") is None
    assert row.authorizer("", {}, "https://evil.test/.openai.azure.com") is None
    assert row.authorizer("k", {}, f"{ENDPOINT}/openai/v1") is None


def test_a_machine_without_an_identity_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")

    with pytest.raises(LLMAuthenticationError, match="set a key, or sign the machine in"):
        Identity("https://cognitiveservices.azure.com/.default")()


# -- through the running server ---------------------------------------------------------------------------------------

FILTERS = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": True, "severity": "high"}}


async def test_a_deployment_answers_and_what_its_filters_say_is_no_part_of_the_text():
    answer = {
        "id": "c1",
        "model": "gpt-4.1-2025-04-14",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERS}],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "half of an ans"},
                "finish_reason": "content_filter",
                "content_filter_results": FILTERS,
            }
        ],
    }

    async def script(exchange: Any) -> None:
        await exchange.answer(answer)

    async with listening(script) as upstream:
        how = {"kind": "azure", "base_url": f"{upstream.url}/openai", "settings": {"api_version": DATED}}
        async with gateway.gateway(upstream, how) as served:
            said = await served.complete(gateway.create("up/my-gpt"))

    assert said.choices[0].message.parts[0].text.text == "half of an ans"
    assert said.choices[0].finish_reason == completion_pb2.FINISH_REASON_CONTENT_FILTER
    assert upstream.exchanges[0].path == f"/openai/deployments/my-gpt/chat/completions?api-version={DATED}"
