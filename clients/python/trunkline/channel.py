"""Where the gateway is and how to speak to it: address, key, encryption, options of the connections."""

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpc

DEFAULT_ADDRESS = "127.0.0.1:50051"
UNARY_TIMEOUT = 600.0
STREAM_TIMEOUT = 1800.0
LOOKUP_TIMEOUT = 30.0
_MIB = 1024 * 1024
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")

try:
    __version__ = version("trunkline-client")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"

# gRPC itself retries by this, obeying the trailer grpc-retry-pushback-ms, and only what the gateway calls UNAVAILABLE.
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [
                    {"service": "trunkline.v1.CompletionService"},
                    {"service": "trunkline.v1.EmbeddingService"},
                    {"service": "trunkline.v1.ModelService"},
                    {"service": "trunkline.v1alpha.TraceService"},
                ],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
)

_OPTIONS: dict[str, Any] = {
    "grpc.service_config": SERVICE_CONFIG,
    "grpc.enable_retries": 1,
    # A request that does not fit here is not retried; the default of 256 KiB is one picture.
    "grpc.per_rpc_retry_buffer_size": 32 * _MIB,
    "grpc.max_receive_message_length": 64 * _MIB,
    # Pings only while a call is open: a gateway drops a client that pings for nothing.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    # A stream may be silent for minutes; by default gRPC stops to ping after two pings without data.
    "grpc.http2.max_pings_without_data": 0,
    "grpc.primary_user_agent": f"trunkline-python/{__version__}",
    # Channels with equal options share one connection unless each has a pool of its own.
    "grpc.use_local_subchannel_pool": 1,
}


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption other than by the system's authorities; PEM files. A certificate with its key makes it mutual."""

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    # Name that the server's certificate must bear, where it is not that of the address.
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials from the files; OSError if one cannot be read."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("tls: cert_file and key_file belong together; give both or none")
        ca, key, cert = (
            None if p is None else Path(p).read_bytes() for p in (self.ca_file, self.key_file, self.cert_file)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway, with everything that is needed to open connections to it and to make a call."""

    address: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    # Holds the key.
    metadata: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(
        cls,
        address: str | None,
        api_key: str | None,
        tls: bool | Tls | None,
        metadata: Mapping[str, str] | None,
        options: Sequence[tuple[str, Any]],
    ) -> "Target":
        """Fills what is absent from TRUNKLINE_ADDRESS and TRUNKLINE_API_KEY. Raises ValueError for what cannot work."""
        address = address or os.environ.get("TRUNKLINE_ADDRESS") or DEFAULT_ADDRESS
        _check_address(address)
        api_key = (api_key if api_key is not None else os.environ.get("TRUNKLINE_API_KEY", "")).strip()
        if not (api_key.isascii() and all(c.isprintable() for c in api_key)):
            raise ValueError("api_key: holds characters that no header can carry; is it the key itself?")
        local = is_loopback(address)
        if tls is None:
            tls = not local
        merged = dict(_OPTIONS)
        if local:  # a proxy of the environment is for other machines
            merged["grpc.enable_http_proxy"] = 0
        if isinstance(tls, Tls) and tls.server_name:
            merged["grpc.ssl_target_name_override"] = tls.server_name
        merged.update(options)
        if tls is True:
            tls = Tls()
        return cls(
            address=address,
            credentials=tls.credentials() if tls else None,
            options=tuple(merged.items()),
            metadata=(*pairs(metadata), *([("authorization", f"Bearer {api_key}")] if api_key else [])),
        )


def pairs(metadata: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    """Metadata as gRPC wants it: names in lower case."""
    return ((name.lower(), value) for name, value in (metadata or {}).items())


def is_loopback(address: str) -> bool:
    """Does the address stay on this machine?"""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition("/")[2].removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
    host = host.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(address: str) -> None:
    if address.startswith(("http:", "https:")):
        raise ValueError(f"address: {address!r} is a URL; write host:port, for example {DEFAULT_ADDRESS}")
    if not address.startswith(_SCHEMES) and not address.rpartition(":")[2].isdigit():
        raise ValueError(f"address: {address!r} has no port; write host:port, for example {DEFAULT_ADDRESS}")
