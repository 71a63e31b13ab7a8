"""AWS's signatures and credentials: where they come from, whom they are sent to, and that AWS would accept them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.providers.bedrock_wire import event

from trunkline_server import providers
from trunkline_server.errors import LLMAuthenticationError, LLMConnectionError
from trunkline_server.providers import ProviderOptions, aws
from trunkline_server.providers.auth import EARLY
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.provider import Provider

ID, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLE=="
URL = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/arn%3Aaws%3Abedrock%2Fabc/converse?a=1&b=%20x"
HEADERS = {"content-type": "application/json", "user-agent": "trunkline", "x-amzn-bedrock-trace": "ENABLED"}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any; returns its home."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def verified(method: str, url: str, headers: Mapping[str, str], body: bytes, secret: str = SECRET) -> dict[str, str]:
    """Computes the signature as AWS does, over what arrived; returns the scope that it was made for."""
    algorithm, _, fields = headers["authorization"].partition(" ")
    told = dict(field.strip().split("=", 1) for field in fields.split(","))
    key_id, date, region, service, end = told["Credential"].split("/")
    assert (algorithm, end) == ("AWS4-HMAC-SHA256", "aws4_request")
    parts = urllib.parse.urlsplit(url)
    # What is encoded in the path is encoded once more, except for S3.
    path = urllib.parse.quote(parts.path, safe="/-_.~")
    query = "&".join(sorted(parts.query.split("&")))
    signed = told["SignedHeaders"].split(";")
    arrived = {"host": parts.netloc, **headers}
    lines = "".join(f"{name}:{arrived[name].strip()}\n" for name in signed)
    request = "\n".join([method, path, query, lines, ";".join(signed), hashlib.sha256(body).hexdigest()])
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"{algorithm}\n{headers['x-amz-date']}\n{scope}\n{digest}"
    key = f"AWS4{secret}".encode()
    for word in (date, region, service, "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    assert hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == told["Signature"]
    assert {"host", "content-type", "x-amz-date"} <= set(signed)
    assert "user-agent" not in signed
    return {"id": key_id, "region": region, "service": service, "signed": told["SignedHeaders"]}


def signer(key: str = f"{ID}:{SECRET}", **how: Any) -> aws.SigV4:
    return aws.SigV4(lambda: aws.pair_of(key), **{"region": "eu-west-1", **how})


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b'{"a":"\xc3\xa9"}', b"x" * (aws.LARGE + 1)], ids=["none", "small", "large"])
async def test_a_signature_is_the_one_that_aws_computes(body: bytes):
    added = await signer().authorize("POST", URL, HEADERS, body)

    scope = verified("POST", URL, {**HEADERS, **added}, body)
    assert scope == {
        "id": ID, "region": "eu-west-1", "service": "bedrock",
        "signed": "content-type;host;x-amz-date;x-amzn-bedrock-trace",
    }  # fmt: skip


async def test_a_session_token_is_sent_and_signed():
    added = await signer(f"{ID}:{SECRET}:{TOKEN}", service="bedrock-mantle").authorize("GET", URL, HEADERS, b"")

    assert added["x-amz-security-token"] == TOKEN
    scope = verified("GET", URL, {**HEADERS, **added}, b"")
    assert scope["service"] == "bedrock-mantle"
    assert "x-amz-security-token" in scope["signed"]


async def test_a_port_that_is_not_the_usual_one_is_part_of_the_host():
    url = "http://127.0.0.1:8080/model/m/converse"

    added = await signer().authorize("POST", url, HEADERS, b"{}")

    verified("POST", url, {**HEADERS, **added}, b"{}")


async def test_credentials_are_asked_for_once_off_the_loop_and_again_in_time():
    now, threads = [1000.0], []

    def fetch() -> Any:
        threads.append(threading.get_ident())
        return aws.pair_of(f"{ID}:{SECRET}")

    sign = aws.SigV4(fetch, region="eu-west-1", clock=lambda: now[0])
    await asyncio.gather(*(sign.authorize("POST", URL, HEADERS, b"") for _ in range(20)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads

    now[0] += aws.LEASE - EARLY + 1
    await sign.authorize("POST", URL, HEADERS, b"")
    now[0] += EARLY
    await sign.authorize("POST", URL, HEADERS, b"")
    assert len(threads) >= 2


# -- credentials ------------------------------------------------------------------------------------------------------


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)

    assert tuple(aws.Chain(region="eu-west-1")())[:3] == (ID, SECRET, TOKEN)


def test_credentials_and_the_region_come_from_a_profile(no_credentials: Path):
    (no_credentials / "credentials").write_text(f"[work]\naws_access_key_id={ID}\naws_secret_access_key={SECRET}\n")
    (no_credentials / "config").write_text("[profile work]\nregion=ap-southeast-2\n")

    assert tuple(aws.Chain(region="eu-west-1", profile="work")())[:2] == (ID, SECRET)
    assert aws.region_of("work") == "ap-southeast-2"
    with pytest.raises(ValueError, match="there is no AWS profile 'play'"):
        aws.region_of("play")


def test_a_machine_without_credentials_says_how_to_give_it_some():
    with pytest.raises(LLMAuthenticationError, match="AWS_BEARER_TOKEN_BEDROCK"):
        aws.Chain(region="eu-west-1")()


class _Sts(http.server.BaseHTTPRequestHandler):
    """Hands out credentials of a role, as AWS does."""

    asked: ClassVar[list[str]] = []
    refuses = False

    def do_POST(self) -> None:
        _Sts.asked.append(self.rfile.read(int(self.headers["content-length"])).decode())
        if _Sts.refuses:
            body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>arn:secret-role</Message></Error>"
            body += "</ErrorResponse>"
        else:
            body = (
                '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
                f"<AccessKeyId>ASIAROLE0000000000AA</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
                f"<SessionToken>{TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
                "</AssumeRoleResult></AssumeRoleResponse>"
            )
        self.send_response(403 if _Sts.refuses else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Sts]]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Sts)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    _Sts.asked.clear()
    _Sts.refuses = False
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield _Sts
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_role_is_assumed_with_what_was_found(sts: type[_Sts]):
    chain = aws.Chain(region="eu-west-1", role="arn:aws:iam::123456789012:role/gateway")

    assert tuple(chain())[:3] == ("ASIAROLE0000000000AA", SECRET, TOKEN)
    chain()
    assert len(sts.asked) == 1
    assert "role%2Fgateway" in sts.asked[0]


def test_a_role_that_is_refused_is_an_error_that_names_nothing(sts: type[_Sts]):
    sts.refuses = True

    with pytest.raises(LLMAuthenticationError) as caught:
        aws.Chain(region="eu-west-1", role="arn:aws:iam::123456789012:role/gateway")()

    assert "secret-role" not in str(caught.value)


def test_a_server_of_credentials_that_is_not_there_is_no_fault_of_the_credentials(
    sts: type[_Sts], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")

    with pytest.raises(LLMConnectionError):
        aws.Chain(region="eu-west-1", role="arn:aws:iam::123456789012:role/gateway")()


@pytest.mark.parametrize("key", ["", "ABSKQmVkcm9jaw==", "bedrock-api-key-x:y", f"{ID}:short", f"{ID}"])
def test_what_is_no_pair_is_a_bearer_token(key: str):
    assert aws.pair_of(key) is None
    assert aws.secrets_in(key) == ([key] if key else [])


def test_every_secret_of_a_pair_is_kept_from_view():
    assert aws.secrets_in(f"{ID}:{SECRET}:{TOKEN}") == [f"{ID}:{SECRET}:{TOKEN}", SECRET, TOKEN]
    assert SECRET in providers.secrets_of([f"{ID}:{SECRET}"])


# -- providers --------------------------------------------------------------------------------------------------------


def build(kind: str = "bedrock", **how: Any) -> Provider:
    return providers.build(ProviderOptions("cloud", kind, **{"settings": {"region": "eu-west-1"}, **how}))


@pytest.mark.parametrize(
    ("kind", "region", "address"),
    [
        ("bedrock", "eu-west-1", "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ("bedrock-invoke", "us-gov-west-1", "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("bedrock", "cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("bedrock-openai", "us-west-2", "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1"),
        ("bedrock-mantle", "us-east-1", "https://bedrock-mantle.us-east-1.api.aws/v1"),
        ("bedrock-responses", "us-east-1", "https://bedrock-mantle.us-east-1.api.aws/openai/v1"),
    ],
)
def test_an_address_is_of_its_region(kind: str, region: str, address: str):
    assert providers.KINDS[kind].address({"region": region}) == address


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "needs settings.region"),
        ({"region": "Frankfurt"}, "'Frankfurt' is no AWS region"),
        ({"region": "eu-west-1@evil.test/"}, "is no AWS region"),
        ({"region": "eu-west-1", "profile": "play"}, "no AWS profile 'play'"),
        ({"zone": "a"}, "no such settings: zone"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        build(settings=settings)


def test_the_region_may_be_the_profiles(no_credentials: Path, monkeypatch: pytest.MonkeyPatch):
    (no_credentials / "config").write_text("[default]\nregion=sa-east-1\n")
    row = providers.KINDS["bedrock"]
    assert row.address({}) == "https://bedrock-runtime.sa-east-1.amazonaws.com"

    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(ValueError, match="AWS_PROFILE"):
        row.address({})


def test_credentials_of_the_machine_go_to_aws_only():
    row = providers.KINDS["bedrock"]
    settings = {"region": "eu-west-1"}

    def signs(key: str, base: str, **more: str) -> bool:
        return row.authorizer(key, {**settings, **more}, base) is not None

    assert signs("", "https://bedrock-runtime.eu-west-1.amazonaws.com")
    assert signs("", "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com")
    assert signs("", "https://bedrock-mantle.eu-west-1.api.aws/v1")
    assert not signs("", "http://127.0.0.1:8080")
    assert not signs("", "https://amazonaws.com.evil.test")
    assert not signs("", "https://evilamazonaws.com")
    assert not signs("ABSKkey", "https://bedrock-runtime.eu-west-1.amazonaws.com")
    assert signs("", "http://127.0.0.1:8080", role_arn="arn:aws:iam::1:role/r")
    assert signs(f"{ID}:{SECRET}", "http://127.0.0.1:8080")


async def test_a_call_is_signed_and_its_stream_of_frames_arrives(serve: Any):
    seen: list[tuple[str, dict[str, str], bytes]] = []
    frames = event("messageStart", {"role": "assistant"}) + event("messageStop", {"stopReason": "end_turn"})

    async def script(peer: Any) -> None:
        while True:
            seen.append(await peer.request())
            head = (
                f"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ncontent-length: {len(frames)}"
            )
            await peer.send(head.encode() + b"\r\n\r\n", frames)

    url, _ = await serve(script)
    for key, start in ((f"{ID}:{SECRET}:{TOKEN}", "AWS4-HMAC-SHA256 "), ("ABSKkey", "Bearer ABSKkey"), ("", "")):
        provider = build(base_url=url, keys={"": key})
        request = UpstreamRequest("/model/eu.anthropic.claude%3A0/converse-stream", b'{"messages":[]}')
        async with provider.upstreams[""].stream(request) as reply:
            got = b"".join([chunk async for chunk in reply.chunks()])
        await provider.aclose()

        assert got == frames
        line, headers, body = seen[-1]
        assert headers.get("authorization", "").startswith(start)
        if start.startswith("AWS4"):
            verified("POST", url + line.split(" ")[1], headers, body)
    assert "authorization" not in seen[-1][1]


def test_models_are_listed_by_the_control_plane_unless_the_address_is_ones_own():
    row: Any = providers.KINDS["bedrock"]

    assert row.listing_address({"region": "eu-west-1"}) == "https://bedrock.eu-west-1.amazonaws.com"
    assert build(keys={"": "ABSKkey"}).lister is not None
    assert build(keys={"": "ABSKkey"}, base_url="http://127.0.0.1:8080").lister is None
    assert build("bedrock-mantle", keys={"": "ABSKkey"}).lister is None


def test_models_that_embed_say_so_and_how_many_inputs_they_take():
    capabilities = providers.KINDS["bedrock"].capabilities_of

    assert (capabilities("eu.cohere.embed-v4:0").embeddings, capabilities("eu.cohere.embed-v4:0").embedding_batch) == (
        True,
        96,
    )
    assert (capabilities("amazon.titan-embed-text-v2:0").embedding_batch) == 1
    assert not capabilities("eu.anthropic.claude-sonnet-4-5-v1:0").embeddings


def test_without_botocore_the_kind_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"pip install 'trunkline-server\[bedrock\]'"):
        build(keys={"": "ABSKkey"})
    assert build("bedrock-openai", keys={"": "ABSKkey"}).kind == "bedrock-openai"
    assert json.dumps(aws.region_of("any")) == '""'
