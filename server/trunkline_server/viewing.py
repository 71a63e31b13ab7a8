"""Puts together the page of calls: its socket, what it is told, and the process that serves it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline_server.child import Child
from trunkline_server.config import ConfigError, PageSettings, Settings
from trunkline_server.page.address import tls_context, url_of
from trunkline_server.page.plan import Plan, encode
from trunkline_server.recording import backends_of, state_dir
from trunkline_server.traces.slots import Slot

_MODULE = "trunkline_server.page.process"

#: Seconds that the process may take to end.
ENDING = 5.0


@dataclass(slots=True)
class Viewing:
    """The page of one server, whatever the number of its processes."""

    #: Where it is, as a URL.
    address: str
    process: Child
    _plan: Plan
    _listening: socket.socket

    def become(self, settings: Settings, secrets: Sequence[str]) -> None:
        """Lets in those whom these settings know."""
        plan = self._plan
        plan.keys, plan.operators = settings.caller_keys, list(settings.operator_names)
        plan.certificates, plan.secrets = settings.by_certificate, list(secrets)
        self.process.tell(encode(plan))

    def close(self) -> None:
        self.process.stop(ENDING)
        self._listening.close()


def open_page(
    settings: Settings, environ: Mapping[str, str], secrets: Sequence[str], slot: Slot | None
) -> Viewing | None:
    """Listens, and starts nothing yet: browsers wait until it is. None if there is to be no page, or nothing is
    recorded after all. Raises ConfigError.
    """
    wanted = settings.page
    if wanted is None or slot is None:
        return None
    if not any(backend.reader() is not None for backend in backends_of(settings, environ)):
        raise ConfigError("page: none of the backends in `traces` can be read; add `sqlite:`, or leave the page out")
    tls = None
    if settings.tls is not None:
        ca = settings.tls.client_ca_file
        tls = (str(settings.tls.cert_file), str(settings.tls.key_file), str(ca) if ca else None)
        try:
            tls_context(*tls)
        except OSError as error:
            raise ConfigError(f"tls: the page cannot use these files: {error.strerror or error}") from None
    listening = _listen(wanted)
    plan = Plan(
        handle=listening.fileno(),
        tail=str(slot.tail),
        state_dir=str(state_dir(settings, environ)),
        backends=[backend.address for backend in settings.traces.backends],
        keys=settings.caller_keys,
        operators=list(settings.operator_names),
        certificates=settings.by_certificate,
        secrets=list(secrets),
        names=[wanted.host, *wanted.names],
        tls=tls,
        log_format=settings.log.format,
        log_level=settings.log.level,
    )
    address = url_of(wanted.host, listening.getsockname()[1], secure=tls is not None)
    return Viewing(address, Child(_MODULE, encode(plan), handles=[listening.fileno()]), plan, listening)


def _listen(wanted: PageSettings) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"page: cannot listen on {wanted.host}:{wanted.port}: {error.strerror or error}; choose another `page.port`"
        ) from None
    return listening
