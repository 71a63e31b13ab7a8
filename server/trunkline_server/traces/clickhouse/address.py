"""Where ClickHouse is: what a URL says of a server, or of a folder for the embedded engine."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from trunkline_server.traces.base import BackendError

#: Options of both kinds, with their defaults.
_DEFAULTS = {"partition": "day", "timeout": "10"}

PERIODS = ("day", "month")

#: Longest path of a socket in bytes; the system's own limit is 103 or 107.
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Options:
    """How to keep records."""

    database: str
    #: What one partition spans, one of PERIODS; only a new table takes it.
    partition: str
    #: Most seconds that one read may take, connecting included; a batch may take six times as long.
    timeout: float


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A server. It holds the password and shows it nowhere."""

    host: str
    port: int
    user: str
    password: str
    secure: bool
    #: Check the server's certificate.
    verify: bool
    #: File with the authorities to check it against. Empty: the system's.
    ca_cert: str
    options: Options

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises BackendError with all that is wrong."""
        parts = urlsplit(url)
        given = {**_DEFAULTS, "secure": "", "verify": "1", "ca_cert": "", **_query(parts.query)}
        database = unquote(parts.path).strip("/") or "trunkline"
        wrong = list(_wrong(given, {"secure", "verify", "ca_cert"}))
        try:
            port = parts.port
        except ValueError:
            port = None
            wrong.append("the port must be a number between 0 and 65535")
        if not parts.hostname:
            wrong.append("name the server, as in clickhouse://HOST/DATABASE")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", database):
            wrong.append(f"database {database!r}: write letters, digits and _")
        flags = [name for name in ("secure", "verify") if given[name] not in ("", "0", "1")]
        wrong += [f"{name}={given[name]}: write 0 or 1" for name in flags]
        if wrong:
            raise BackendError(f"clickhouse: {'; '.join(wrong)}")
        secure = parts.scheme == "clickhouses" or given["secure"] == "1"
        return cls(
            host=parts.hostname or "",
            port=port or (8443 if secure else 8123),
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure=secure,
            verify=given["verify"] != "0",
            ca_cert=given["ca_cert"],
            options=_options(given, database),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the embedded engine, which one process at a time can hold."""

    folder: Path
    #: Where the process that holds it listens.
    socket: Path
    #: What that process says.
    log: Path
    options: Options

    @classmethod
    def parse(cls, url: str, state_dir: Path) -> Place:
        """A relative folder lies in the state directory. Raises BackendError with all that is wrong."""
        path, _, query = url.partition(":")[2].partition("?")
        given = {**_DEFAULTS, **_query(query)}
        wrong = list(_wrong(given, set()))
        if path.startswith("//"):
            host, slash, rest = path[2:].partition("/")
            path = slash + rest
            if host or not slash:
                wrong.append("is a folder of this machine: write clickhouse+chdb:FOLDER")
        folder = state_dir.absolute() / Path(unquote(path) or "chdb").expanduser()
        socket, log = (folder.with_name(folder.name + suffix) for suffix in (".sock", ".log"))
        if len(str(socket).encode()) > _LONGEST:
            wrong.append(f"{folder}: a socket lies beside the folder, whose path is too long for one; choose a shorter")
        if folder.is_file():
            wrong.append(f"{folder} is a file; write clickhouse+chdb:FOLDER")
        if wrong:
            raise BackendError(f"clickhouse+chdb: {'; '.join(wrong)}")
        return cls(folder, socket, log, _options(given, "trunkline"))


def require(*modules: str) -> None:
    """Raises ImportError for a package that is not installed. Looks only: the engine takes 250 MB once imported."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ImportError(name=module)


def _query(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


def _options(given: Mapping[str, str], database: str) -> Options:
    return Options(database, given["partition"], float(given["timeout"]))


def _wrong(given: Mapping[str, str], more: set[str]) -> Iterator[str]:
    known = {*_DEFAULTS, *more}
    if unknown := sorted(given.keys() - known):
        yield f"no such option: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
    if given["partition"] not in PERIODS:
        yield f"partition={given['partition']}: write {' or '.join(PERIODS)}"
    if not _seconds(given["timeout"]):
        yield f"timeout={given['timeout']}: write seconds from 0.1 to 600"


def _seconds(text: str) -> bool:
    try:
        return 0.1 <= float(text) <= 600
    except ValueError:
        return False
