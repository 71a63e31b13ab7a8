"""The page's process: `python -m trunkline_server.page.process`, started by the server and told its plan on stdin.

It ends when stdin does, which is also how it learns that the server is gone. Signals that reach every process of a
server do not end it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from trunkline_server.access import Callers
from trunkline_server.child import heed
from trunkline_server.page.address import tls_context
from trunkline_server.page.plan import Plan, decode
from trunkline_server.page.server import Page
from trunkline_server.redact import Redactor
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers
from trunkline_server.traces.tail import follow


def main() -> int:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    return asyncio.run(_run(decode(line)))


async def _run(plan: Plan) -> int:
    redactor = Redactor(plan.secrets)
    log = make_log(form=plan.log_format, level=plan.log_level)
    try:
        backends = [open_backend(url, Path(plan.state_dir)) for url in plan.backends]
        tls = None if plan.tls is None else tls_context(*plan.tls)
    except (BackendError, OSError) as error:
        told = redactor(str(error))
        log.error("the page cannot be served", error=told)  # noqa: TRY400  # the text says all
        return 2
    readers = Readers(
        [(backend.name, reader) for backend in backends if (reader := backend.reader()) is not None],
        told=lambda name, why: log.warning("trace backend does not answer", backend=name, error=redactor(why)),
    )
    feed = Feed(partial(follow, Path(plan.tail)))
    page = Page(readers, feed, _callers(plan), names=plan.names, tls=tls)

    def become(line: bytes) -> None:
        told = decode(line)
        redactor.learn(told.secrets)
        page.become(_callers(told))

    stop = heed(become)
    try:
        await page.serve(socket.socket(fileno=plan.handle))
        await stop.wait()
    finally:
        await page.aclose()
        await feed.aclose()
        await readers.aclose()
    return 0


def _callers(plan: Plan) -> Callers:
    return Callers(plan.keys, operators=plan.operators, certificates=plan.certificates)


if __name__ == "__main__":
    sys.exit(main())
