"""Where a PostgreSQL server is and how to speak with it: what a URL says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import asyncpg

from trunkline_server.traces.base import BackendError, BackendUnavailable

#: Options of a URL that libpq has and asyncpg takes.
_LIBPQ = frozenset({
    "application_name", "database", "dbname", "gsslib", "host", "krbsrvname", "passfile", "password", "port", "service",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip

#: Our own options, with their defaults.
_OWN = {"partition": "day", "timeout": "10", "connections": "4"}

PERIODS = ("day", "month")

#: What no waiting mends: a wrong password or role, a database that is not there, a right that is missing.
_FOR_GOOD = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

#: What the records of a batch are at fault for.
UNFIT = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError, OverflowError, TypeError)

#: Everything that a statement or a connection can fail with.
FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A URL that was read. It holds the password and shows it nowhere."""

    dsn: str
    #: What one partition spans, one of PERIODS.
    partition: str
    #: Most seconds that one read may take, connecting included; a batch may take six times as long.
    timeout: float
    #: Most connections of one reader.
    connections: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises BackendError with all that is wrong."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        own = {name: options.pop(name, default) for name, default in _OWN.items()}
        wrong = list(_wrong(parts, options, own))
        if wrong:
            raise BackendError(f"postgresql: {'; '.join(wrong)}")
        return cls(
            parts._replace(query=urlencode(options)).geturl(),
            own["partition"],
            float(own["timeout"]),
            int(own["connections"]),
        )

    async def connect(self, seconds: float) -> asyncpg.Connection:
        """A connection whose statements end within so many seconds. Raises BackendUnavailable, or BackendError."""
        try:
            async with asyncio.timeout(self.timeout):
                return await asyncpg.connect(self.dsn, timeout=self.timeout, **self.settings(seconds))
        except FAILURES as error:
            raise refused(error) from None

    def settings(self, seconds: float) -> dict[str, object]:
        """What connections are made with."""
        return {
            "command_timeout": seconds,
            "server_settings": {
                "application_name": "trunkline",
                # A server that works on asks nobody; one that hangs is left by our own clock.
                "statement_timeout": str(int(seconds * 1000)),
                "lock_timeout": str(int(seconds * 1000)),
                "idle_in_transaction_session_timeout": str(int(seconds * 1000)),
                # Which index is right depends on what is asked for, so plans are made for the values at hand.
                "plan_cache_mode": "force_custom_plan",
                # Compiling takes longer than any of our statements.
                "jit": "off",
                "timezone": "UTC",
            },
        }


def refused(error: BaseException) -> BackendError | BackendUnavailable:
    """What a failure to open means: a mistake that stays, or a state that passes."""
    return BackendError(f"postgresql: {told(error)}") if isinstance(error, _FOR_GOOD) else unavailable(error)


def unavailable(error: BaseException) -> BackendUnavailable:
    return BackendUnavailable(f"postgresql: {told(error)}")


def unwritten(error: BaseException) -> BackendUnavailable | ValueError:
    """What a batch failed with: ValueError if the records are at fault. It shows nothing of them."""
    if isinstance(error, UNFIT):
        return ValueError(f"postgresql: does not take a record: {type(error).__name__}")
    return unavailable(error)


def told(error: BaseException) -> str:
    """An error in one line for a log. What a statement held is not in it."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{str(error).partition(chr(10))[0][:300]} (SQLSTATE {error.sqlstate})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error)[:300] or type(error).__name__


def _wrong(parts: SplitResult, options: dict[str, str], own: dict[str, str]) -> list[str]:
    found = []
    hosts = parts.netloc.rpartition("@")[2].split(",")
    try:
        for host in hosts:
            urlsplit(f"//{host}").port  # noqa: B018  # it is checked when it is read
    except ValueError:
        found.append("a port must be a number between 0 and 65535")
    if not parts.netloc and not options.get("host") and not options.get("service"):
        found.append("name the server, as in postgresql://HOST/DATABASE")
    named = unquote(parts.path).strip("/")
    if not named and not {"database", "dbname", "service"} & options.keys():
        found.append("name the database, as in postgresql://HOST/DATABASE")
    unknown = sorted(options.keys() - _LIBPQ)
    if unknown:
        known = ", ".join(sorted([*_OWN, *_LIBPQ]))
        found.append(f"no such option: {', '.join(unknown)}; there are {known}")
    if own["partition"] not in PERIODS:
        found.append(f"partition={own['partition']}: write {' or '.join(PERIODS)}")
    if not _number(own["timeout"], 0.1, 600):
        found.append(f"timeout={own['timeout']}: write seconds from 0.1 to 600")
    if not (own["connections"].isdecimal() and _number(own["connections"], 1, 100)):
        found.append(f"connections={own['connections']}: write a whole number from 1 to 100")
    return found


def _number(text: str, least: float, most: float) -> bool:
    try:
        return least <= float(text) <= most
    except ValueError:
        return False
