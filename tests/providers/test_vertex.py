"""Vertex AI: addresses by location, models of two makers, and tokens of Google's credentials."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth
import google.auth.credentials
import pytest
from anthropic import AsyncAnthropicVertex, BadRequestError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions
from tests.providers.gemini_wire import USER, chunk, spec_of
from tests.upstream import upstream as listening

from tests import gateway
from trunkline_server import providers
from trunkline_server.errors import LLMAuthenticationError, LLMConnectionError
from trunkline_server.providers import ProviderOptions
from trunkline_server.providers.auth import BearerToken
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.claude import capabilities
from trunkline_server.providers.dialects.anthropic_messages import VertexAnthropic
from trunkline_server.providers.google import VERTEX, Credentials

PROJECT = {"project": "my-project"}


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (PROJECT, "https://aiplatform.googleapis.com/v1/projects/my-project/locations/global"),
        (
            {**PROJECT, "location": "europe-west4"},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/my-project/locations/europe-west4",
        ),
        (
            {**PROJECT, "location": "eu", "api_version": "v1beta1"},
            "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/my-project/locations/eu",
        ),
        ({}, "https://aiplatform.googleapis.com/v1"),
    ],
)
def test_an_address_is_made_of_project_and_location(settings: dict[str, str], address: str):
    assert VERTEX.address(settings) == address


@pytest.mark.parametrize("settings", [{"project": "a/b"}, {**PROJECT, "location": "evil.test/"}])
def test_a_setting_that_would_lead_elsewhere_is_refused(settings: dict[str, str]):
    with pytest.raises(ValueError, match=r"settings\.\w+ '.*' is none"):
        VERTEX.address(settings)


def test_settings_come_from_the_usual_variables():
    environ = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "us-east5"}

    assert providers.settings_from("vertex", environ) == {"project": "p", "location": "us-east5", "api_version": "v1"}


def test_without_a_key_a_project_is_needed():
    with pytest.raises(ValueError, match="GOOGLE_CLOUD_PROJECT"):
        providers.build(ProviderOptions("vertex", "vertex"))


def test_a_key_goes_as_a_header_and_needs_no_token():
    assert VERTEX.authorization("k") == {"x-goog-api-key": "k"}
    assert VERTEX.authorizer("k", {}, "https://aiplatform.googleapis.com/v1") is None


def test_credentials_of_the_machine_go_to_googles_hosts_only():
    private = "https://us-central1-aiplatform-psc.p.googleapis.com/v1/projects/p/locations/l"

    assert isinstance(VERTEX.authorizer("", {}, private), BearerToken)
    assert VERTEX.authorizer("", {}, "https://googleapis.com.evil.test/v1/projects/p") is None


# -- tokens -----------------------------------------------------------------------------------------------------------


class TokenServer(http.server.ThreadingHTTPServer):
    """Google's token server. Gives a token for each assertion, unless told otherwise."""

    def __init__(self) -> None:
        self.assertions: list[str] = []
        self.status = 200
        self.body: dict[str, Any] = {"access_token": "ya29.made-up", "expires_in": 3600, "token_type": "Bearer"}
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.assertions += asked["assertion"]
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def account(tokens: TokenServer, tmp_path: Path) -> str:
    """The key file of a service account whose tokens come from here."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "account-project",
                "private_key_id": "1",
                "private_key": key.decode(),
                "client_email": "gateway@account-project.iam.gserviceaccount.test",
                "client_id": "1",
                "token_uri": f"http://127.0.0.1:{tokens.server_port}/token",
            }
        )
    )
    return str(file)


def test_a_service_account_gets_a_token_and_its_end(tokens: TokenServer, account: str):
    token = Credentials(account)()

    assert token.value == "ya29.made-up"
    assert token.expires is not None
    assert 3500 < token.expires - time.time() <= 3600
    assert len(tokens.assertions) == 1


def test_the_project_of_a_service_account_is_the_project(account: str):
    assert VERTEX.address({"service_account_file": account}).endswith("/projects/account-project/locations/global")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "invalid_grant", "error_description": "secret story"}, LLMAuthenticationError),
        (503, {"error": "internal_failure"}, LLMConnectionError),
    ],
)
def test_a_token_that_is_not_given_is_an_error_without_its_story(
    tokens: TokenServer, account: str, status: int, body: dict[str, str], error: type[Exception], monkeypatch: Any
):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # google-auth waits between tries
    tokens.status, tokens.body = status, body
    fetch = Credentials(account)

    with pytest.raises(error) as caught:
        fetch()

    assert "secret story" not in str(caught.value)


def test_a_token_server_that_is_gone_is_a_broken_connection(tokens: TokenServer, account: str, monkeypatch: Any):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    fetch = Credentials(account)
    tokens.shutdown()
    tokens.server_close()

    with pytest.raises(LLMConnectionError, match="token server"):
        fetch()


def test_a_machine_without_credentials_is_told_what_to_set(monkeypatch: Any):
    def default(**scopes: object) -> None:
        raise exceptions.DefaultCredentialsError("where google-auth looked")

    monkeypatch.setattr(google.auth, "default", default)

    with pytest.raises(LLMAuthenticationError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        Credentials()()


def test_the_default_credentials_are_looked_for_once_and_say_who_pays(monkeypatch: Any):
    class Found(google.auth.credentials.Credentials):
        quota_project_id, refreshed = "payer", 0

        def refresh(self, request: object) -> None:
            self.token = "t"
            self.refreshed += 1

    found = Found()
    looked: list[object] = []

    def default(**scopes: object) -> tuple[Found, str]:
        looked.append(scopes)
        return found, "p"

    monkeypatch.setattr(google.auth, "default", default)
    fetch = Credentials()

    first, second = fetch(), fetch()

    assert (first.value, first.expires, first.headers) == ("t", None, {"x-goog-user-project": "payer"})
    assert second == first
    assert (len(looked), found.refreshed) == (1, 2)


@pytest.mark.parametrize("content", ["", "{}", '{"type": "authorized_user"}'])
def test_a_file_that_is_no_service_accounts_is_refused_when_the_server_starts(tmp_path: Path, content: str):
    file = tmp_path / "key.json"
    file.write_text(content)

    with pytest.raises(ValueError, match="service_account_file"):
        providers.build(ProviderOptions("v", "vertex", settings={**PROJECT, "service_account_file": str(file)}))
    with pytest.raises(ValueError, match="service_account_file"):
        Credentials(str(tmp_path / "absent.json"))


# -- models of two makers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dialect", "origin", "path"),
    [
        ("gemini-2.5-flash", "vertex_gemini", "vertex", "/publishers/google/models/gemini-2.5-flash:generateContent"),
        ("google/gemini-3-pro", "vertex_gemini", "vertex", "/publishers/google/models/gemini-3-pro:generateContent"),
        ("endpoints/123", "vertex_gemini", "vertex", "/endpoints/123:generateContent"),
        (
            "claude-haiku-4-5@20251001", "vertex_anthropic", "anthropic",
            "/publishers/anthropic/models/claude-haiku-4-5@20251001:rawPredict",
        ),
        (
            "anthropic/claude-opus-4-5", "vertex_anthropic", "anthropic",
            "/publishers/anthropic/models/claude-opus-4-5:rawPredict",
        ),
    ],
)  # fmt: skip
def test_a_model_is_asked_in_its_makers_words(model: str, dialect: str, origin: str, path: str):
    provider = providers.build(ProviderOptions("v", "vertex", settings=PROJECT, keys={"": "k"}))
    target = provider.target(model)

    made = provider.dialect_for(model).encode(spec_of(USER), target, Notes(), stream=False)

    assert (provider.dialect_for(model).name, target.origin, made.path) == (dialect, origin, path)


async def test_anthropics_requests_are_what_its_own_client_sends():
    model = "claude-haiku-4-5@20251001"
    target = Target("v", "anthropic", model, capabilities(model))
    spec = spec_of(USER + "params { max_output_tokens: 9 stop_sequences: 'a' }")
    ours = [VertexAnthropic().encode(spec, target, Notes(), stream=stream) for stream in (False, True)]

    async def script(exchange: Any) -> None:
        await exchange.answer({"error": "enough was seen"}, status=400)

    async with (
        listening(script) as upstream,
        AsyncAnthropicVertex(base_url=upstream.url, region="r", project_id="p", access_token="t") as client,
    ):
        for stream in (False, True):
            with pytest.raises(BadRequestError):
                await client.messages.create(
                    model=model, max_tokens=9, stop_sequences=["a"], stream=stream,
                    messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
                )  # fmt: skip

    for made, theirs in zip(ours, upstream.exchanges, strict=True):
        assert theirs.path == f"/projects/p/locations/r{made.path}"
        sent = {name: value for name, value in theirs.json.items() if value is not False}
        # The version is the one whose answers we read, whichever is the newest that the client knows.
        assert sent.pop("anthropic_version")
        assert json.loads(made.body) == {"anthropic_version": "vertex-2023-10-16", **sent}


def test_tokens_of_anthropics_models_are_counted_at_one_place_for_all():
    target = Target("v", "anthropic", "anthropic/claude-opus-4-5", capabilities("claude-opus-4-5"))

    made = VertexAnthropic().encode_count(spec_of(USER), target, Notes())

    assert made.path == "/publishers/anthropic/models/count-tokens:rawPredict"
    assert json.loads(made.body)["model"] == "claude-opus-4-5"
    assert json.loads(made.body)["anthropic_version"] == "vertex-2023-10-16"


def test_gemini_embeds_one_input_at_a_time_and_the_older_models_many():
    assert VERTEX.capabilities_of("gemini-embedding-001").embedding_batch == 1
    assert VERTEX.capabilities_of("text-embedding-005").embedding_batch == 100


# -- through the running server ---------------------------------------------------------------------------------------


async def test_a_call_is_authenticated_with_a_token_that_is_fetched_once(tokens: TokenServer, account: str):
    seen: list[Any] = []

    async def script(exchange: Any) -> None:
        seen.append(exchange)
        await exchange.answer(chunk({"text": "hi"}, finish="STOP"))

    async with listening(script) as upstream:
        how = {"kind": "vertex", "base_url": f"{upstream.url}/v1", "settings": {"service_account_file": account}}
        async with gateway.gateway(upstream, how) as served:
            answers = [await served.complete(gateway.create("up/gemini-2.5-flash")) for _ in range(2)]

    assert [answer.choices[0].message.parts[0].text.text for answer in answers] == ["hi", "hi"]
    assert [exchange.headers["authorization"] for exchange in seen] == ["Bearer ya29.made-up"] * 2
    assert seen[0].path == "/v1/publishers/google/models/gemini-2.5-flash:generateContent"
    assert len(tokens.assertions) == 1


async def test_a_token_that_cannot_be_had_ends_the_call_as_the_gateways_own_credential(
    tokens: TokenServer, account: str
):
    tokens.status, tokens.body = 400, {"error": "invalid_grant"}

    async def script(exchange: Any) -> None:
        raise AssertionError("nothing is sent")

    async with listening(script) as upstream:
        how = {"kind": "vertex", "base_url": f"{upstream.url}/v1", "settings": {"service_account_file": account}}
        async with gateway.gateway(upstream, how) as served:
            failed = await gateway.failing(served.complete(gateway.create("up/gemini-2.5-flash")))

    assert failed.reason == "LLM_AUTHENTICATION"
    assert "renew" in failed.message
