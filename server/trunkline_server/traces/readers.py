"""The backends that can read, as one: the first that answers, and never more than one caller may see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.errors import ResourceNotFound, StoreUnavailable
from trunkline_server.traces.base import BackendUnavailable, Page, Position, Reader, Total

Filter = trace_service_pb2.TraceFilter
T = TypeVar("T")

#: Seconds that a backend has to answer before the next one is asked.
PATIENCE = 10.0

#: Seconds for which a backend that did not answer is asked last.
_SHUNNED = 5.0

#: Most bytes of a page of full records, unless one alone is larger: gRPC's clients take 4 MiB by default.
_PAGE_BYTES = 3 * 1024 * 1024
#: Records that are read at once while their size is not known, and at most.
_FIRST_BATCH, _LARGEST_BATCH = 8, 500


@dataclass(slots=True)
class _Source:
    name: str
    reader: Reader
    #: Until when it is asked last, in monotonic seconds.
    shunned: float = 0.0


class Readers:
    """Finds records. `only` is the caller whose records may be seen; None: everybody's.

    Every method asks the backends in their order until one answers, and says which. Raises StoreUnavailable if none
    does.
    """

    def __init__(
        self,
        readers: Sequence[tuple[str, Reader]],
        *,
        told: Callable[[str, str], None] = lambda name, why: None,
        forbid: Callable[[str], None] = lambda trace_id: None,
    ) -> None:
        """`readers` by the name of their backend. `told` hears of each one that does not answer, and why. `forbid` has
        what still waits for backends left out, by its id; raises OSError.
        """
        self._sources = [_Source(name, reader) for name, reader in readers]
        self._told = told
        self._forbid = forbid

    def __bool__(self) -> bool:
        """Can any backend read?"""
        return bool(self._sources)

    async def get(self, trace_id: str, *, only: str | None, full: bool) -> tuple[trace_pb2.Trace, str]:
        """One record, and the backend's name. Raises ResourceNotFound, also for somebody else's."""
        found, backend = await self._first(lambda reader: reader.get(trace_id, full=full))
        if found is None or (only is not None and found.caller != only):
            raise missing(trace_id)
        return found, backend

    async def page(
        self,
        which: Filter,
        *,
        only: str | None,
        after: Position | None,
        size: int,
        oldest_first: bool = False,
        full: bool = False,
    ) -> tuple[Page, str]:
        """At most `size` records after a position, and the backend's name. A page of full records ends early."""
        seen = scoped(which, only)
        if seen is None:
            return Page((), more=False), self._ordered()[0].name

        def asked(count: int) -> Callable[[Reader], Awaitable[Page]]:
            return lambda reader: reader.list(seen, after=after, size=count, oldest_first=oldest_first, full=full)

        if not full:
            return await self._first(asked(size))
        page, backend = await self._first(asked(min(size, _FIRST_BATCH)))
        traces = list(page.traces)
        while page.more and len(traces) < size and (left := _PAGE_BYTES - _bytes(traces)) > 0:
            after = position(traces[-1])
            count = max(1, min(size - len(traces), left * len(traces) // max(_bytes(traces), 1), _LARGEST_BATCH))
            page, backend = await self._first(asked(count))
            traces += page.traces
        fitting = _fitting(traces)
        return Page(fitting, page.more or len(fitting) < len(traces)), backend

    async def export(
        self, which: Filter, *, only: str | None, full: bool
    ) -> AsyncGenerator[Sequence[trace_pb2.Trace], None]:
        """All records, oldest first, in batches that are bounded in bytes; read as they are asked for."""
        after: Position | None = None
        while True:
            page, _ = await self.page(which, only=only, after=after, size=_LARGEST_BATCH, oldest_first=True, full=full)
            if page.traces:
                yield page.traces
                after = position(page.traces[-1])
            if not page.more:
                return

    async def totals(self, which: Filter, *, only: str | None, span_us: int) -> tuple[Sequence[Total], str]:
        """Sums by span of time, provider and model, and the backend's name."""
        seen = scoped(which, only)
        if seen is None:
            return (), self._ordered()[0].name
        return await self._first(lambda reader: reader.totals(seen, span_us=span_us))

    async def delete(self, trace_id: str) -> Sequence[str]:
        """Deletes the record everywhere, also where it would have come later. Returns the names of the backends that
        held it.

        Raises StoreUnavailable if one of them does not answer: the others have deleted it, and another call finishes.
        """
        try:
            # First, so that what is delivered meanwhile is either seen here or taken out there.
            await asyncio.to_thread(self._forbid, trace_id)
        except OSError as error:
            why = error.strerror or "it cannot be written"
            raise StoreUnavailable(f"the deletion cannot be noted in the state directory ({why}); try again") from None
        deleted: list[str] = []
        down: list[str] = []
        for source in self._sources:
            try:
                if await self._ask(source, lambda reader: reader.delete(trace_id)):
                    deleted.append(source.name)
            except BackendUnavailable:
                down.append(source.name)
        if down:
            done = f"deleted from {', '.join(deleted)}, but " if deleted else ""
            raise StoreUnavailable(
                f"{done}{', '.join(down)} cannot be reached, and may hold the record: delete it again later"
            )
        if not deleted:
            raise missing(trace_id)
        return deleted

    async def aclose(self) -> None:
        for source in self._sources:
            await source.reader.aclose()

    async def _first(self, ask: Callable[[Reader], Awaitable[T]]) -> tuple[T, str]:
        for source in self._ordered():
            try:
                return await self._ask(source, ask), source.name
            except BackendUnavailable:
                source.shunned = time.monotonic() + _SHUNNED
        names = ", ".join(source.name for source in self._sources)
        raise StoreUnavailable(f"no backend of traces can be reached ({names}); try again shortly")

    def _ordered(self) -> list[_Source]:
        now = time.monotonic()
        return sorted(self._sources, key=lambda source: source.shunned > now)

    async def _ask(self, source: _Source, ask: Callable[[Reader], Awaitable[T]]) -> T:
        timer = asyncio.timeout(PATIENCE)
        try:
            async with timer:
                return await ask(source.reader)
        except TimeoutError as error:
            if not timer.expired():
                raise
            self._told(source.name, f"no answer within {PATIENCE:g} s")
            raise BackendUnavailable(source.name) from error
        except BackendUnavailable as error:
            self._told(source.name, str(error))
            raise


def scoped(which: Filter, only: str | None) -> Filter | None:
    """The filter that also keeps to what may be seen; None: nothing is left."""
    if only is None:
        return which
    # An empty name would not restrict.
    if not only or which.caller not in ("", only):
        return None
    narrowed = Filter()
    narrowed.CopyFrom(which)
    narrowed.caller = only
    return narrowed


def position(trace: trace_pb2.Trace) -> Position:
    """Where a page that ends with this record ends."""
    began = trace.start_time
    return Position(began.seconds * 1_000_000 + began.nanos // 1000, trace_id_of(trace))


def trace_id_of(trace: trace_pb2.Trace) -> str:
    return trace.name.removeprefix("traces/")


def missing(trace_id: str) -> ResourceNotFound:
    return ResourceNotFound(f"no record traces/{trace_id} of a call of yours", resource=("trace", f"traces/{trace_id}"))


def _bytes(traces: Sequence[trace_pb2.Trace]) -> int:
    return sum(trace.ByteSize() for trace in traces)


def _fitting(traces: Sequence[trace_pb2.Trace]) -> Sequence[trace_pb2.Trace]:
    """The first ones, as many as a page holds; at least one."""
    size = 0
    for index, trace in enumerate(traces):
        size += trace.ByteSize()
        if size > _PAGE_BYTES and index:
            return traces[:index]
    return traces
