"""Puts together what records calls: the spool of a server and the process that delivers from it; in each serving
process what tells of calls, and what finds their records again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from trunkline.v1 import completion_pb2
from trunkline_server.config import ConfigError, Settings
from trunkline_server.telemetry import Telemetry
from trunkline_server.traces import deleted, open_backend
from trunkline_server.traces.base import Backend, BackendError, NoRecorder, Recorder
from trunkline_server.traces.delivery import Delivery
from trunkline_server.traces.following import Feed
from trunkline_server.traces.journal import Journal
from trunkline_server.traces.plan import Plan, encode
from trunkline_server.traces.readers import Readers
from trunkline_server.traces.recorder import JournalRecorder
from trunkline_server.traces.slots import Lock, Slot, take
from trunkline_server.traces.tail import follow

_CAPTURES = {
    "full": completion_pb2.CAPTURE_FULL,
    "no_content": completion_pb2.CAPTURE_NO_CONTENT,
    "off": completion_pb2.CAPTURE_OFF,
}
#: Seconds for what waits for backends when the server goes down: as long as it drains, within these bounds.
FLUSH_LEAST, FLUSH_MOST = 2.0, 10.0
#: Seconds that the delivery process may take beyond that to end.
_ENDING = 5.0


@dataclass(slots=True)
class Spool:
    """Of one server, whatever the number of its processes: a folder of its own, and who delivers from it."""

    slot: Slot
    delivery: Delivery
    _plan: Plan
    _lock: Lock

    def become(self, secrets: Sequence[str], kinds: Mapping[str, str]) -> None:
        """What is delivered from now on is masked and priced by these."""
        self._plan.secrets, self._plan.kinds = list(secrets), dict(kinds)
        self.delivery.tell(encode(self._plan))

    def close(self) -> bool:
        """Waits, within bounds, until what was recorded is delivered. False if the delivery had to be ended."""
        done = self.delivery.stop(self._plan.flush + _ENDING)
        self._lock.release()
        return done


@dataclass(slots=True)
class Recording:
    """In one serving process."""

    recorder: Recorder
    readers: Readers
    feed: Feed | None = None
    journal: Journal | None = None

    async def aclose(self) -> None:
        if self.feed is not None:
            await self.feed.aclose()
        await self.readers.aclose()
        if self.journal is not None:
            await asyncio.to_thread(self.journal.close)


def open_spool(
    settings: Settings,
    environ: Mapping[str, str],
    secrets: Sequence[str],
    kinds: Mapping[str, str],
    log: Any,
    *,
    stderr: IO[bytes] | None = None,
) -> Spool | None:
    """None if nothing is recorded. Raises ConfigError for a backend or a directory that cannot be used; where nobody
    asked for records, that is only a warning.
    """
    traces = settings.traces
    if not traces.backends:
        return None
    folder = state_dir(settings, environ)
    urls = [backend.address for backend in traces.backends]
    backends_of(settings, environ)
    try:
        slot, held = take(folder)
    except OSError as error:
        if settings.model_fields_set & {"state_dir", "traces"}:
            raise ConfigError(
                f"state_dir: {folder} cannot be written ({error.strerror}), and records of calls are spooled there; "
                "choose another directory, or set `traces: off`"
            ) from None
        log.warning(
            "calls are not recorded: the state directory cannot be written; set state_dir, or `traces: off`",
            state_dir=str(folder),
            error=error.strerror,
        )
        return None
    plan = Plan(
        slot=str(slot.path),
        state_dir=str(folder),
        backends=urls,
        keep=traces.keep,
        keep_bytes=None if traces.max_bytes is None else int(traces.max_bytes),
        spool_bytes=int(traces.spool_bytes),
        body_bytes=int(traces.body_bytes),
        redact=list(traces.redact),
        secrets=list(secrets),
        kinds=dict(kinds),
        flush=min(FLUSH_MOST, max(FLUSH_LEAST, settings.drain.grace)),
        log_format=settings.log.format,
        log_level=settings.log.level,
    )
    return Spool(slot, Delivery(plan, stderr=stderr), plan, held)


def record(settings: Settings, environ: Mapping[str, str], slot: Slot | None, telemetry: Telemetry) -> Recording:
    """`slot`: of the server's spool; None: calls are not recorded. Raises ConfigError."""
    traces = settings.traces
    backends = backends_of(settings, environ) if slot is not None else ()
    readers = Readers(
        [(backend.name, reader) for backend in backends if (reader := backend.reader()) is not None],
        told=lambda name, why: telemetry.warning("trace backend does not answer", backend=name, error=why),
        forbid=partial(deleted.tell, state_dir(settings, environ)),
    )
    if slot is None:
        return Recording(NoRecorder(), readers)
    try:
        journal = Journal(
            slot.journal,
            most_bytes=traces.spool_bytes // settings.workers,
            told=lambda why: telemetry.warning(why or "the journal of calls is written again"),
        )
    except OSError as error:
        raise ConfigError(f"state_dir: {slot.journal} cannot be written: {error.strerror}") from None
    recorder = JournalRecorder(journal, capture=_CAPTURES[traces.capture], body_bytes=int(traces.body_bytes))
    return Recording(recorder, readers, Feed(partial(follow, slot.tail)), journal)


def state_dir(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The configured one, or the usual one for this user."""
    if settings.state_dir is not None:
        return settings.state_dir.expanduser().absolute()
    usual = environ.get("XDG_STATE_HOME", "")
    return (Path(usual) if Path(usual).is_absolute() else Path.home() / ".local" / "state") / "trunkline"


def backends_of(settings: Settings, environ: Mapping[str, str]) -> list[Backend]:
    """Not connected. Raises ConfigError that names each one that is wrong."""
    folder, made, mistakes = state_dir(settings, environ), [], []
    for index, backend in enumerate(settings.traces.backends):
        try:
            made.append(open_backend(backend.address, folder))
        except BackendError as error:
            mistakes.append(f"  traces.backends.{index}: {error}")
    if mistakes:
        raise ConfigError("the configuration cannot be used:\n" + "\n".join(mistakes))
    return made


def passwords_of(settings: Settings) -> list[str]:
    """What stands in the URLs of backends and must never be shown."""
    found = []
    for backend in settings.traces.backends:
        try:
            password = urlsplit(backend.address).password
        except ValueError:
            continue
        if password:
            found += [password, unquote(password)]
    return found
