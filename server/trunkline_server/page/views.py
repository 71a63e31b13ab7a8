"""What the page shows: a list of calls, one call, what was spent over time, and calls as they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import jinja2
from aiohttp import web
from google.protobuf import json_format

from trunkline.v1alpha import trace_pb2
from trunkline_server.access import Callers
from trunkline_server.errors import CallerUnauthenticated, GatewayError, ResourceNotFound
from trunkline_server.page import forms, plots
from trunkline_server.page.guard import VIEWER, Viewer
from trunkline_server.page.sessions import Sessions
from trunkline_server.page.timeline import time_line
from trunkline_server.traces import tokens
from trunkline_server.traces.base import Total
from trunkline_server.traces.following import Feed
from trunkline_server.traces.matching import matches
from trunkline_server.traces.readers import Readers, position, scoped

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE_SIZE = 50

#: Seconds of silence after which a browser that follows is sent a comment.
KEEP_ALIVE = 15.0

#: Length of a span of time in the plots, by the range that they show.
SPANS = {
    "15m": timedelta(seconds=15),
    "1h": timedelta(minutes=1),
    "24h": timedelta(minutes=30),
    "7d": timedelta(hours=3),
    "30d": timedelta(hours=12),
}
_DEFAULT_RANGE = "24h"


class Views:
    """The handlers."""

    def __init__(
        self,
        readers: Readers,
        feed: Feed,
        callers: Callers,
        sessions: Sessions,
        templates: jinja2.Environment,
        clock: Callable[[], datetime],
        *,
        secure: bool,
    ) -> None:
        self._readers = readers
        self._feed = feed
        self._callers = callers
        self._sessions = sessions
        self._templates = templates
        self._clock = clock
        self._secure = secure

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.get("/", self._told(self.calls)),
            web.get("/calls/{id}", self._told(self.call)),
            web.get("/calls/{id}/record.json", self._told(self.record)),
            web.get("/calls/{id}/attempts/{number}/{what}", self._told(self.body)),
            web.get("/usage", self._told(self.usage)),
            web.get("/tail", self._told(self.tail)),
            web.get("/sign-in", self.ask_for_key),
            web.post("/sign-in", self.sign_in),
            web.post("/sign-out", self.sign_out),
        ]

    async def calls(self, request: web.Request) -> web.StreamResponse:
        asked, viewer = forms.parse(request.query, self._clock()), request[VIEWER]
        traces: Sequence[trace_pb2.Trace] = ()
        token, backend = "", ""
        if not asked.mistakes:
            try:
                after = tokens.decode(request.query.get("after", ""), asked.lasting, viewer.only, oldest_first=False)
            except tokens.WrongToken:
                raise web.HTTPSeeOther(f"/?{asked.query()}") from None
            page, backend = await self._readers.page(asked.filter, only=viewer.only, after=after, size=PAGE_SIZE)
            traces = page.traces
            if page.more:
                token = tokens.encode(position(traces[-1]), asked.lasting, viewer.only, oldest_first=False)
        return self._page(
            request, "calls.html", asked=asked, traces=traces, token=token, backend=backend,
            paged="after" in request.query, status=400 if asked.mistakes else 200,
        )  # fmt: skip

    async def call(self, request: web.Request) -> web.StreamResponse:
        trace, backend = await self._trace(request)
        return self._page(request, "call.html", trace=trace, line=time_line(trace), backend=backend)

    async def record(self, request: web.Request) -> web.StreamResponse:
        trace, _ = await self._trace(request)
        return _download(json_format.MessageToJson(trace).encode(), f"{request.match_info['id']}.json")

    async def body(self, request: web.Request) -> web.StreamResponse:
        trace, _ = await self._trace(request)
        number, what = request.match_info["number"], request.match_info["what"]
        for attempt in trace.attempts:
            if str(attempt.number) == number and what in ("request", "response"):
                payload = getattr(attempt, what)
                return _download(payload.body, f"{request.match_info['id']}-{number}-{what}")
        raise web.HTTPNotFound(text="There is no such body.\n")

    async def usage(self, request: web.Request) -> web.StreamResponse:
        query = {"range": _DEFAULT_RANGE, **request.query}
        if query["range"] not in SPANS:
            query["range"] = _DEFAULT_RANGE
        now = self._clock()
        asked, viewer, span = forms.parse(query, now), request[VIEWER], SPANS[query["range"]]
        totals: Sequence[Total] = ()
        backend = ""
        span_us = round(span.total_seconds() * 1e6)
        starts = _starts(now, query["range"], span_us)
        if not asked.mistakes:
            # Whole spans only: a bar that lacks its beginning tells nothing.
            asked.filter.start_time.FromMicroseconds(starts[0])
            totals, backend = await self._readers.totals(asked.filter, only=viewer.only, span_us=span_us)
        return self._page(
            request, "usage.html", asked=asked, backend=backend, starts=starts, span_us=span_us,
            plots=_plots(totals, starts), models=_models(totals), sums=_sum(totals), model_of=plots.model_of,
            target=_target, status=400 if asked.mistakes else 200,
        )  # fmt: skip

    async def tail(self, request: web.Request) -> web.StreamResponse:
        """Rows of the list as calls end, by server-sent events, until the viewer is no longer known."""
        asked, viewer = forms.parse(request.query, self._clock()), request[VIEWER]
        if asked.mistakes:
            raise web.HTTPBadRequest(text="The filter is not one.\n")
        asked.filter.ClearField("start_time")
        asked.filter.ClearField("end_time")
        which = scoped(asked.filter, viewer.only)
        row = self._templates.get_template("row.html")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        with suppress(ConnectionError):
            try:
                async with (
                    self._sessions.answering(request),
                    self._feed.follow(
                        lambda trace: which is not None and matches(which, trace), full=False
                    ) as follower,
                ):
                    await response.prepare(request)
                    await response.write(b": following\n\n")
                    dropped = 0
                    while True:
                        trace = await follower.next(KEEP_ALIVE)
                        told = b": alive\n\n"
                        if trace is not None:
                            told = _event("call", row.render(trace=trace, viewer=viewer))
                        if follower.dropped > dropped:
                            dropped = follower.dropped
                            told += _event("dropped", str(dropped))
                        await response.write(told)
            except TimeoutError:
                if not response.prepared:
                    raise web.HTTPUnauthorized(text="Who may look has changed: come in again.\n") from None
                await response.write(_event("ended", "who may look has changed"))
        return response

    async def ask_for_key(self, request: web.Request) -> web.StreamResponse:
        if VIEWER in request:
            raise web.HTTPSeeOther(_local(request.query.get("next", "")))
        return self._page(request, "sign-in.html", next=_local(request.query.get("next", "")), mistake="")

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        goal = _local(str(form.get("next", "")))
        if not self._callers.keyed:
            raise web.HTTPSeeOther(goal)
        try:
            name = self._callers.by_key(str(form.get("key", "")))
        except CallerUnauthenticated as error:
            await asyncio.sleep(0.2)  # guessing is slow
            return self._page(request, "sign-in.html", next=goal, mistake=error.message, status=401)
        response = web.Response(status=303, headers={"Location": goal})
        self._sessions.begin(name, response, secure=self._secure)
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(status=303, headers={"Location": "/sign-in"})
        self._sessions.end(request, response)
        return response

    async def _trace(self, request: web.Request) -> tuple[trace_pb2.Trace, str]:
        return await self._readers.get(request.match_info["id"][:128], only=request[VIEWER].only, full=True)

    def _told(self, handler: Handler) -> Handler:
        """The handler, with our errors as pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except GatewayError as error:
                status = 404 if isinstance(error, ResourceNotFound) else 503
                return self._page(request, "problem.html", message=error.message, status=status)

        return handle

    def _page(self, request: web.Request, name: str, *, status: int = 200, **shown: Any) -> web.Response:
        viewer: Viewer | None = request.get(VIEWER)
        text = self._templates.get_template(name).render(
            viewer=viewer, path=request.path, keyed=self._callers.keyed, **shown
        )
        return web.Response(text=text, content_type="text/html", status=status)


def _local(goal: str) -> str:
    """A path on this page; the first one for everything else."""
    return goal if goal.startswith("/") and not goal.startswith(("//", "/\\")) and goal.isprintable() else "/"


def _download(body: bytes, name: str) -> web.Response:
    """Bytes that came from outside: never shown as anything but text, never run."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return web.Response(
        body=body,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{safe}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _event(name: str, data: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() if line.strip())
    return f"event: {name}\n{lines}\n".encode()


def _starts(now: datetime, asked: str, span_us: int) -> list[int]:
    """When the spans of a range begin, as far as they lie in it whole, and the one that goes on."""
    back = forms.RANGES[asked][1] or timedelta()
    last = round(now.timestamp() * 1e6) // span_us * span_us
    count = round(back.total_seconds() * 1e6) // span_us
    return [last - span_us * n for n in range(count - 1, -1, -1)]


def _target(name: str) -> dict[str, str]:
    """The filter for the calls of a series."""
    if name == plots.OTHERS:
        return {}
    provider, slash, model = name.partition("/")
    return {"provider": provider, "model": model} if slash else {}


def _plots(totals: Sequence[Total], starts: Sequence[int]) -> dict[str, plots.Plot]:
    ranks = plots.ranked(totals)
    return {
        "cost": plots.stacked(
            totals, starts, ranks, lambda t: (t.cost_nano_usd / 1e9, t.estimated_cost_nano_usd / 1e9), plots.dollars
        ),
        "tokens": plots.stacked(totals, starts, ranks, plots.tokens, plots.short),
        "calls": plots.stacked(totals, starts, ranks, lambda t: (t.calls, 0), plots.short),
    }


def _models(totals: Sequence[Total]) -> list[Total]:
    """What each model came to, the dearest first."""
    by_name: dict[tuple[str, str], list[Total]] = {}
    for total in totals:
        by_name.setdefault((total.provider, total.model), []).append(total)
    summed = [_sum(of, *name) for name, of in by_name.items()]
    return sorted(summed, key=lambda one: (-plots.cost(one), -one.calls, one.provider, one.model))


def _sum(totals: Sequence[Total], provider: str = "", model: str = "") -> Total:
    return Total(
        0, provider, model,
        sum(t.calls for t in totals), sum(t.failed for t in totals), sum(t.input_tokens for t in totals),
        sum(t.output_tokens for t in totals), sum(t.cost_nano_usd for t in totals),
        sum(t.estimated_input_tokens for t in totals), sum(t.estimated_output_tokens for t in totals),
        sum(t.estimated_cost_nano_usd for t in totals),
    )  # fmt: skip
