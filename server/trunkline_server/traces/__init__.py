"""The records of calls: how they are kept, delivered to backends, and read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trunkline_server.traces.base import Backend, BackendError


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a URL's scheme stands for."""

    #: "module:Class" of a Backend, imported when the first URL names it: drivers are large, and optional.
    backend: str
    #: How its URLs look, for people.
    form: str
    #: The extra of this package that has its driver. Empty: it needs none.
    extra: str = ""


#: All backends by the scheme of their URLs.
SCHEMES: Mapping[str, Scheme] = {
    "sqlite": Scheme("trunkline_server.traces.sqlite:SqliteBackend", "sqlite:[FILE]"),
    "postgresql": Scheme(
        "trunkline_server.traces.postgresql:PostgresqlBackend", "postgresql://HOST/DATABASE", extra="postgresql"
    ),
    "clickhouse": Scheme(
        "trunkline_server.traces.clickhouse:ClickhouseBackend", "clickhouse://HOST/DATABASE", extra="clickhouse"
    ),
    "clickhouses": Scheme(
        "trunkline_server.traces.clickhouse:ClickhouseBackend", "clickhouses://HOST/DATABASE", extra="clickhouse"
    ),
    "clickhouse+chdb": Scheme(
        "trunkline_server.traces.clickhouse:ChdbBackend", "clickhouse+chdb:[FOLDER]", extra="chdb"
    ),
    "unix": Scheme("trunkline_server.traces.unix:UnixBackend", "unix:/PATH/OF/THE/SOCKET"),
    "otlp": Scheme("trunkline_server.traces.otlp:OtlpBackend", "otlp://HOST:4317", extra="otel"),
    "otlps": Scheme("trunkline_server.traces.otlp:OtlpBackend", "otlps://HOST:4317", extra="otel"),
}


def open_backend(url: str, state_dir: Path) -> Backend:
    """The backend that a URL names, not connected. Raises BackendError, which never shows the URL: it can hold a
    password.
    """
    scheme, colon, _ = url.partition(":")
    found = SCHEMES.get(scheme) if colon else None
    if found is None:
        known = ", ".join(row.form for row in SCHEMES.values())
        said = f"no trace backend has the scheme {scheme!r}" if colon else "a trace backend is named by a URL"
        raise BackendError(f"{said}; write one of {known}")
    module, _, name = found.backend.partition(":")
    try:
        made: Backend = getattr(importlib.import_module(module), name)(url, state_dir)
    except ImportError as error:
        if not found.extra or (error.name or "").startswith("trunkline_server"):
            raise
        install = f"pip install 'trunkline-server[{found.extra}]'"
        raise BackendError(f"{scheme}: needs the package {error.name!r}; install it with `{install}`") from None
    return made


__all__ = ["SCHEMES", "Scheme", "open_backend"]
