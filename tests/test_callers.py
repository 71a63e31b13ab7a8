"""Who may call, over what, and which of their headers travel on."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.gateway import create, failing, gateway, stream
from tests.upstream import says, upstream

from trunkline.v1.model_service_pb2 import ListModelsRequest
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_server import app as composition
from trunkline_server.config import ConfigError, load

KEY, OTHER = "team-a-0123456789abcdef", "team-b-0123456789abcdef"


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, str]]:
    """One key in the environment, one in a file."""
    monkeypatch.setenv("KEY_A", KEY)
    (tmp_path / "key").write_text(OTHER + "\n")
    return [{"name": "team-a", "api_key_env": "KEY_A"}, {"name": "team-b", "api_key_file": str(tmp_path / "key")}]


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ([("authorization", f"Bearer {KEY}")], "team-a"),
        ([("authorization", f"bearer  {KEY}")], "team-a"),
        ([("authorization", KEY)], "team-a"),
        ([("x-api-key", OTHER)], "team-b"),
    ],
)
async def test_a_known_key_is_let_in_by_its_name(
    callers: list[dict[str, str]], metadata: list[tuple[str, str]], name: str
) -> None:
    async with gateway(callers=callers) as gw:
        await gw.complete(create("fake/echo"), metadata=metadata)
        await gw.stream(stream("fake/echo"), metadata=metadata).rest()

    assert [line["caller"] for line in gw.calls()] == [name, name]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {KEY[:-1]}")],
        [("authorization", f"Bearer {KEY}x")],
        [("authorization", f"Basic {KEY}")],
        [("x-api-key", KEY.upper())],
    ],
)
async def test_no_other_key_is(callers: list[dict[str, str]], metadata: list[tuple[str, str]]) -> None:
    async with upstream(says()) as up, gateway(up, callers=callers) as gw:
        methods = (
            gw.completions.CreateCompletion(create(), metadata=metadata),
            gw.completions.StreamCompletion(stream(), metadata=metadata).read(),
            # What cannot be parsed is not looked at before the caller is known.
            gw.bytes("/trunkline.v1.CompletionService/CreateCompletion")(b"\xff", metadata=metadata),
            gw.bytes("/trunkline.v1.ModelService/ListModels")(b"", metadata=metadata),
        )
        failures = [await failing(method) for method in methods]

    for failed in failures:
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED")
        assert set(failed.details) == {"ErrorInfo"}
        assert failed.pushback is None
        assert KEY[:-1] not in failed.message
    assert up.exchanges == []
    assert {(line["code"], line["caller"]) for line in gw.calls()} == {("UNAUTHENTICATED", "")}
    assert KEY[:-1] not in gw.log


async def test_without_keys_everybody_on_this_machine_is_let_in() -> None:
    async with gateway() as gw:
        await gw.complete(create("fake/echo"), metadata=[("authorization", "Bearer whatever")])

    assert gw.calls()[0]["caller"] == "anonymous"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "gateway.example:50051"])
def test_without_keys_nobody_elsewhere_can_be_let_in(listen: str) -> None:
    with pytest.raises(ConfigError, match="no callers are configured"):
        load(None, listen=listen)


def test_without_keys_and_certificates_everybody_is_an_operator() -> None:
    assert composition.callers_of(load(None)).is_operator("anonymous")


def test_operators_are_those_who_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_A", KEY)
    monkeypatch.setenv("KEY_B", OTHER)
    callers = [
        {"name": "team-a", "api_key_env": "KEY_A"},
        {"name": "team-b", "api_key_env": "KEY_B", "operator": True},
    ]
    tls = {"cert_file": "cert.pem", "key_file": "key.pem", "client_ca_file": "ca.pem"}

    by_key = composition.callers_of(load(None, callers=callers))
    by_certificate = composition.callers_of(load(None, tls=tls, operators=["ops"]))

    assert [by_key.is_operator(name) for name in ("team-a", "team-b", "ops")] == [False, True, False]
    assert [by_certificate.is_operator(name) for name in ("team-a", "ops", "anonymous")] == [False, True, False]


def test_operators_by_certificate_need_certificates(callers: list[dict[str, str]]) -> None:
    with pytest.raises(ConfigError, match=r"require client certificates with tls\.client_ca_file"):
        load(None, operators=["ops"])
    with pytest.raises(ConfigError, match="write `operator: true` at those in `callers`"):
        load(None, operators=["ops"], callers=callers)


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_files(authority: trustme.CA, folder: Path) -> dict[str, str]:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "cert.pem"), append=True)
    return {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}


def listing(channel: grpc.aio.Channel) -> Any:
    """Any call will do."""
    return ModelServiceStub(channel).ListModels(ListModelsRequest())


def client_credentials(authority: trustme.CA, common_name: str | None = None, issuer: trustme.CA | None = None) -> Any:
    root = authority.cert_pem.bytes()
    if common_name is None:
        return grpc.ssl_channel_credentials(root)
    issued = (issuer or authority).issue_cert("client.example", common_name=common_name)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(root, issued.private_key_pem.bytes(), chain)


async def test_a_server_with_a_certificate_speaks_tls_only(authority: trustme.CA, tmp_path: Path) -> None:
    tls = server_files(authority, tmp_path)
    async with gateway(tls=tls, channel_credentials=client_credentials(authority), host="localhost") as gw:
        await gw.complete(create("fake/echo"))
        async with grpc.aio.insecure_channel(gw.address) as plain:
            failed = await failing(listing(plain))

    assert failed.code is grpc.StatusCode.UNAVAILABLE


async def test_a_client_certificate_names_its_caller(authority: trustme.CA, tmp_path: Path) -> None:
    files = server_files(authority, tmp_path)
    authority.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    files["client_ca_file"] = str(tmp_path / "clients.pem")
    known = client_credentials(authority, "team-c")
    async with gateway(tls=files, listen="0.0.0.0:0", channel_credentials=known, host="localhost") as gw:
        await gw.complete(create("fake/echo"))
        for stranger in (client_credentials(authority), client_credentials(authority, "x", trustme.CA())):
            async with grpc.aio.secure_channel(gw.address, stranger) as channel:
                failed = await failing(listing(channel))
                assert failed.code is grpc.StatusCode.UNAVAILABLE

    assert [line["caller"] for line in gw.calls()] == ["team-c"]


async def test_a_provider_with_a_private_authority_is_trusted_by_its_file(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with upstream(says(), context) as up:
        async with gateway(up, {"ca_file": str(tmp_path / "ca.pem")}) as gw:
            await gw.complete(create())
        async with gateway(up) as gw:
            failed = await failing(gw.completions.CreateCompletion(create()))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert "set ca_file" in failed.message


# -- headers ----------------------------------------------------------------------------------------------------------


async def test_only_what_is_on_the_list_travels_on(
    callers: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", "key-of-the-house-0123456789")
    metadata = [
        ("authorization", f"Bearer {KEY}"),
        ("x-tenant", "blue"),
        ("x-secret", "no"),
        ("cookie", "no"),
        ("x-request-id", "mine"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]
    async with (
        upstream(says()) as up,
        gateway(up, {"api_key_env": "UP_KEY"}, callers=callers, forward_metadata=["x-tenant"]) as gw,
    ):
        await gw.complete(create(), metadata=metadata)
        await gw.stream(stream(), metadata=metadata).rest()

    assert len(up.exchanges) == 2
    for exchange in up.exchanges:
        assert exchange.headers["x-tenant"] == "blue"
        assert exchange.headers["authorization"] == "Bearer key-of-the-house-0123456789"
        assert KEY not in str(exchange.headers)
        assert set(exchange.headers) <= {
            "host", "accept", "accept-encoding", "authorization", "content-type", "content-length", "user-agent",
            "x-tenant",
        }  # fmt: skip


async def test_a_callers_key_does_not_travel_to_a_provider_without_one(callers: list[dict[str, str]]) -> None:
    async with upstream(says()) as up, gateway(up, callers=callers) as gw:
        await gw.complete(create(), metadata=[("authorization", f"Bearer {KEY}")])

    assert "authorization" not in up.exchanges[0].headers
    assert "x-api-key" not in up.exchanges[0].headers


async def test_a_header_given_twice_travels_as_a_list_and_never_over_the_operators() -> None:
    provider = {"headers": {"x-tenant": "fixed"}}
    metadata = [("x-tenant", "blue"), ("x-tag", "a"), ("x-tag", "b")]
    async with (
        upstream(says()) as up,
        gateway(up, provider, forward_metadata=["x-tenant", "x-tag"]) as gw,
    ):
        await gw.complete(create(), metadata=metadata)

    assert up.exchanges[0].headers["x-tenant"] == "fixed"
    assert up.exchanges[0].headers["x-tag"] == "a,b"


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "host", "cookie", "expect", "grpc-timeout", "x-bin"])
def test_what_is_never_forwarded_cannot_be_put_on_the_list(name: str) -> None:
    with pytest.raises(ConfigError, match="is never forwarded"):
        load(None, forward_metadata=[name])


async def test_the_callers_own_id_of_a_call_comes_back_in_errors_and_in_the_log() -> None:
    async with gateway() as gw:
        by_metadata = await failing(
            gw.completions.CreateCompletion(create("fake/none"), metadata=[("x-request-id", "from-metadata")])
        )
        by_request = await failing(gw.completions.CreateCompletion(create("fake/none", request_id="from-request")))

    assert by_metadata.details["RequestInfo"].serving_data == "from-metadata"
    assert by_request.details["RequestInfo"].serving_data == "from-request"
    assert [line["request_id"] for line in gw.calls()] == ["from-metadata", "from-request"]


async def test_a_credential_of_the_house_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", "first-key-0123456789")
    monkeypatch.setenv("SECOND", "second-key-0123456789")
    credentials = {"second": {"provider": "up", "api_key_env": "SECOND"}}
    request = create()
    request.options.credential = "second"
    wrong = create("fake/echo")
    wrong.options.credential = "second"
    async with upstream(says()) as up, gateway(up, {"api_key_env": "FIRST"}, credentials=credentials) as gw:
        await gw.complete(create())
        await gw.complete(request)
        failed = await failing(gw.completions.CreateCompletion(wrong))

    sent = [exchange.headers["authorization"] for exchange in up.exchanges]
    assert sent == ["Bearer first-key-0123456789", "Bearer second-key-0123456789"]
    assert (failed.code, list(failed.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["options.credential"])
