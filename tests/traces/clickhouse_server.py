"""ClickHouse's HTTP interface in front of its real engine (chDB), as far as a client asks for it: the server itself is
no package of any registry. `python -m tests.traces.clickhouse_server FOLDER PORT USER PASSWORD`
"""

from __future__ import annotations

import base64
import re
import sys
import tempfile
from typing import Any

import chdb
import lz4.frame
import zstandard
from aiohttp import web

#: Parameters of a request that are no settings of the engine.
_TRANSPORT = {
    "query", "database", "query_id", "session_id", "client_protocol_version", "enable_http_compression", "compress",
    "decompress", "wait_end_of_query", "send_progress_in_http_headers", "http_headers_progress_interval_ms", "role",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip

#: Settings that the engine does not have without a server.
_SERVER_ONLY = {"async_insert", "wait_for_async_insert"}

_DECODERS = {
    "": lambda data: data,
    "lz4": lz4.frame.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}

_FORMAT = re.compile(r"\s+FORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)

#: A statement that its data follow in the same body.
_INSERT = re.compile(rb"INSERT INTO [^\n]*? FORMAT Native\n")


class Front:
    """One connection to the engine, one statement at a time."""

    def __init__(self, folder: str, user: str, password: str) -> None:
        self._engine = chdb.connect(folder)
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != self._authorization:
            return _failed(403, "Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)")
        given = dict(request.query)
        try:
            if request.content_type == "multipart/form-data":
                given |= {name: str(value) for name, value in (await request.post()).items()}
                data = given.pop("query").encode()
            else:
                data = _DECODERS[request.headers.get("Content-Encoding", "")](await request.read())
            return web.Response(
                body=self._run(given, data),
                headers={"X-ClickHouse-Summary": "{}", "X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Query-Id": "1"},
            )
        except Exception as error:  # noqa: BLE001  # the test that it breaks shows it
            return _failed(500, str(error) if isinstance(error, RuntimeError) else repr(error))

    def _run(self, given: dict[str, str], data: bytes) -> bytes:
        statement = given.get("query", "")
        params: dict[str, Any] = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
        settings = {k: v for k, v in given.items() if not k.startswith("param_") and k not in _TRANSPORT | _SERVER_ONLY}
        for name, value in settings.items():
            self._engine.query(f"SET {name} = '{value}'")
        if given.get("database"):
            self._engine.query(f"USE `{given['database']}`")
        if not statement and (inserted := _INSERT.match(data)):
            statement, data = inserted[0].decode(), data[inserted.end() :]
        elif not statement:
            statement, data = data.decode(), b""
        if not data:
            found = _FORMAT.search(statement)
            answer = self._engine.query(
                _FORMAT.sub("", statement), found[1] if found else "TabSeparated", params=params
            )
            return bytes(answer.bytes() or b"")
        with tempfile.NamedTemporaryFile(suffix=".native") as file:
            file.write(data)
            file.flush()
            found = _FORMAT.search(statement)
            assert found, statement
            self._engine.query(f"{_FORMAT.sub('', statement)} FROM INFILE '{file.name}' FORMAT {found[1]}")
        return b""


def _failed(status: int, text: str) -> web.Response:
    found = re.search(r"Code: (\d+)", text)
    return web.Response(
        status=status, text=text, headers={"X-ClickHouse-Exception-Code": found[1] if found else "1000"}
    )


def main() -> None:
    folder, port, user, password = sys.argv[1:]
    app = web.Application(client_max_size=1 << 30)
    front = Front(folder, user, password)
    app.router.add_get("/ping", lambda _: _pong())
    app.router.add_route("*", "/", front.answer)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None)


async def _pong() -> web.Response:
    return web.Response(text="Ok.\n")


if __name__ == "__main__":
    main()
