"""Where the store is: what its URL says. Loads no database library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("sqlite", "postgresql")
FILE = "config.db"


class StoreError(Exception):
    """The store cannot be used as it is configured. Names what to do."""


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A URL that was read. It may hold a password and shows it nowhere."""

    #: For SQLAlchemy.
    url: str
    #: Of SQLite; None elsewhere.
    file: Path | None

    @classmethod
    def parse(cls, url: str, state_dir: Path | None) -> Address:
        """`sqlite:` alone is a file in the state directory. Raises StoreError."""
        parts = urlsplit(url)
        if parts.scheme == "sqlite":
            file = Path(unquote(parts.path)) if parts.path.strip("/") else None
            if file is None and state_dir is not None:
                file = state_dir / FILE
            if file is None or parts.netloc:
                raise StoreError(f"store: {url!r} names no file: write sqlite:///PATH")
            return cls(f"sqlite+aiosqlite:///{file}", file)
        if parts.scheme in {"postgresql", "postgres"}:
            return cls(parts._replace(scheme="postgresql+asyncpg").geturl(), None)
        raise StoreError(f"store: no store {parts.scheme!r}; write one of {', '.join(f'{s}:' for s in SCHEMES)}")
