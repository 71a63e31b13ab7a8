"""Where the gateway is and how the connection is made."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_gateway import FakeGateway, hello

from trunkline import Client, Tls, Unreachable
from trunkline.channel import Target, is_loopback


def target(address: str | None = None, *, api_key: str | None = None, tls: bool | Tls | None = None) -> Target:
    return Target.of(address, api_key, tls, None, ())


class Authority:
    """Makes the files of a private authority, a gateway and a caller."""

    def __init__(self, folder: Path) -> None:
        trustme = pytest.importorskip("trustme")
        self.authority = trustme.CA()
        gateway, caller = self.authority.issue_cert("gateway.internal"), self.authority.issue_cert("caller")
        self.ca_file, self.cert_file, self.key_file = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        caller.cert_chain_pems[0].write_to_path(str(self.cert_file))
        caller.private_key_pem.write_to_path(str(self.key_file))
        self._pair = (gateway.private_key_pem.bytes(), gateway.cert_chain_pems[0].bytes())

    def credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([self._pair], self.ca_file.read_bytes(), require_client_auth=mutual)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def secure(request: pytest.FixtureRequest, authority: Authority) -> Iterator[FakeGateway]:
    gateway = FakeGateway(authority.credentials(mutual=request.param))
    yield gateway
    gateway.stop()


def test_a_gateway_behind_tls_answers(secure: FakeGateway, authority: Authority) -> None:
    tls = Tls(authority.ca_file, authority.cert_file, authority.key_file, server_name="gateway.internal")

    with Client(secure.address, tls=tls, api_key="key") as client:
        assert client.complete("a", model="m") == hello()
    assert secure.calls[0].metadata["authorization"] == "Bearer key"


@pytest.mark.parametrize(
    "fields",
    [
        {"server_name": "gateway.internal"},  # the system does not know the authority
        {"ca_file": True, "server_name": "other.internal"},
    ],
)
def test_a_gateway_that_cannot_prove_its_name_is_not_spoken_to(authority: Authority, fields: dict[str, Any]) -> None:
    gateway = FakeGateway(authority.credentials(mutual=False))
    tls = Tls(**{**fields, **({"ca_file": authority.ca_file} if "ca_file" in fields else {})})

    with Client(gateway.address, tls=tls) as client, pytest.raises(Unreachable):
        client.complete("a", model="m")
    assert gateway.calls == []
    gateway.stop()


def test_a_certificate_belongs_to_a_key(authority: Authority) -> None:
    with pytest.raises(ValueError, match="cert_file and key_file belong together"):
        Client(tls=Tls(cert_file=authority.cert_file))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Client(tls=Tls(ca_file="nowhere.pem"))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.9.9.9:1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("unix:/run/trunkline.sock", True),
        ("10.0.0.1:50051", False),
        ("gateway.internal:443", False),
        ("localhost.example.com:443", False),
        ("dns:///gateway.internal:443", False),
        ("[2001:db8::1]:443", False),
    ],
)
def test_encryption_is_on_unless_the_address_is_this_machine(address: str, local: bool) -> None:
    assert is_loopback(address) is local
    assert (target(address).credentials is None) is local
    assert target(address, tls=False).credentials is None
    assert target(address, tls=True).credentials is not None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://gateway.internal", "'https://gateway.internal' is a URL; write host:port"),
        ("gateway.internal", "'gateway.internal' has no port; write host:port"),
    ],
)
def test_an_address_that_cannot_be_is_refused(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(address)


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Client(api_key="geheim\u00df")

    assert "geheim" not in str(caught.value)


def test_an_empty_key_is_none() -> None:
    assert target(api_key="").metadata == ()


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_ADDRESS", raising=False)
    assert target().address == "127.0.0.1:50051"
    monkeypatch.setenv("TRUNKLINE_ADDRESS", "gateway.internal:443")
    assert target().address == "gateway.internal:443"
    assert target("other:1").address == "other:1"


def test_options_of_the_caller_stand_over_ours() -> None:
    options = dict(Target.of(None, None, None, None, [("grpc.keepalive_time_ms", 5), ("x", 1)]).options)

    assert (options["grpc.keepalive_time_ms"], options["x"]) == (5, 1)
    assert options["grpc.max_receive_message_length"] == 64 * 1024 * 1024


def test_no_connections_are_refused() -> None:
    with pytest.raises(ValueError, match="connections: must be at least 1, is 0"):
        Client(connections=0)


def test_the_key_does_not_show_in_a_client() -> None:
    client = Client(api_key="geheim")

    assert "geheim" not in repr(client)
    assert "geheim" not in repr(client._target)
