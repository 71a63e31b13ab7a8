"""The gRPC server: options, services, health, reflection, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.methods import Service
from trunkline_server.rpc.sockets import connected, stop_listening

#: What gRPC is given beyond the grace of a drain, in seconds.
_BEYOND = 30.0
#: gRPC asks a connection to move on at its age or up to a tenth later, and clients take a moment to go.
_LATER, _GOES = 1.1, 1.0
#: How often is looked who is still there, in seconds.
_LOOKS = 0.25

_HEALTH = "grpc.health.v1.Health"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `client_ca_file` makes client certificates required."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises OSError with the name of the file that cannot be read."""
        authority = _read(self.client_ca_file) if self.client_ca_file else None
        return grpc.ssl_server_credentials(
            [(_read(self.key_file), _read(self.cert_file))],
            root_certificates=authority,
            require_client_auth=authority is not None,
        )


class Server:
    """One gRPC server on one event loop."""

    def __init__(
        self,
        services: Sequence[Service],
        boundary: Boundary,
        *,
        max_request_bytes: int,
        max_connection_age: float,
        share_port: bool = False,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._boundary = boundary
        self._age = max_connection_age
        self._port = 0
        self._hurry = asyncio.Event()
        self._names = [service.NAME for service in services]
        self._server = grpc.aio.server(
            interceptors=list(interceptors),
            options=[
                # What is over the limit of requests is refused by the boundary, with details; gRPC's own refusal, which
                # has none, only bounds the memory that such a message takes until then.
                ("grpc.max_receive_message_length", min(2 * max_request_bytes, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1 if share_port else 0),
                # Of calls that arrive at once gRPC cancels some past 1,000, without a reason; `max_calls` gives one.
                ("grpc.server.max_pending_requests", 100_000),
                ("grpc.server.max_pending_requests_hard_limit", 200_000),
                # Clients that ping a silent stream every 10 s or more are not cut off.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                # The server looks for dead peers by itself.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                # Connections move on, so that new replicas get their share; calls on them may finish, however long
                # the time limits of a provider let them last.
                ("grpc.max_connection_age_ms", int(max_connection_age * 1000)),
            ],
        )
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service.NAME, dict(service.methods(boundary)))
                for service in services
            )
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*self._names, _HEALTH, reflection.SERVICE_NAME), self._server)

    def listen(self, address: str, tls: TlsFiles | None = None) -> int:
        """Binds and returns the port. Raises OSError if that cannot be done."""
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.credentials())
        except RuntimeError:
            port = 0
        if not port:
            raise OSError(f"cannot listen on {address}")
        self._port = port
        return port

    async def start(self) -> None:
        """Starts and tells SERVING, overall and by service."""
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def leave(self) -> None:
        """Leaves the port to those that share it: takes no new connections, and returns when none is left.

        Connections move on at their age, one by one, while calls on them are served as ever. To tell all of them to go
        at once would cost calls: gRPC cancels those that arrive at that moment, and nobody repeats what is cancelled.
        Waits no longer than that age, or until `hurry`.
        """
        stop_listening(self._port)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._age * _LATER + _GOES):
                while connected(self._port):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._hurry.wait(), _LOOKS)
                        return

    def hurry(self) -> None:
        """What is waited for before calls are refused is waited for no longer."""
        self._hurry.set()

    async def drain(self, delay: float, grace: float) -> None:
        """Goes down without a failed call, as far as `grace` allows.

        NOT_SERVING first; `delay` seconds for load balancers to see it, while calls are still taken; then GOAWAY to all
        connections and no new calls, `grace` seconds for those in flight, and SHUTTING_DOWN with the last sequence
        number for the rest.
        """
        await self._health.enter_graceful_shutdown()
        if delay > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), delay)
        going: list[asyncio.Task[None]] = []
        # Every call ends before its time is up, so that gRPC cancels none.
        await self._boundary.running.drain(
            grace, leave=lambda: going.append(asyncio.create_task(self._server.stop(grace + _BEYOND)))
        )
        await self._server.stop(1.0)
        await asyncio.gather(*going)

    async def stop(self) -> None:
        """Ends at once, a drain that is under way too."""
        self._hurry.set()
        await self._server.stop(None)


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
