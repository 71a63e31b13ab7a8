"""What settings are made of: times, names, and sections that know all of their fields."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_from(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", value)
        if match is None:
            raise ValueError('write a number of seconds, or a number with ms, s, m, h or d, e.g. "30s"')
        return float(match[1]) * _UNITS[match[2]]
    return value


def text_from(value: object) -> object:
    """YAML reads 2024-10-21 as a date and 12345 as a number."""
    return str(value) if isinstance(value, dt.date | int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(seconds_from), Field(ge=0, le=86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
#: What callers may write as the model; `*` at the end stands for any characters.
RouteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@-]{0,255}[A-Za-z0-9._:/@*-]$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def referred(data: Mapping[str, Any], name: str) -> str | None:
    """What NAME_env or NAME_file leads to; None if neither is set. Raises ValueError."""
    env, file = data.get(f"{name}_env"), data.get(f"{name}_file")
    if env and file:
        raise ValueError(f"set {name}_env or {name}_file, not both")
    if isinstance(env, str):
        value = os.environ.get(env, "").strip()
        if not value:
            raise ValueError(f"the environment variable {env} ({name}_env) is not set")
        return value
    if not file:
        return None
    try:
        value = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"cannot read {file} ({name}_file): {reason}") from None
    if not value:
        raise ValueError(f"{file} ({name}_file) is empty")
    return value


class UrlReference(Strict):
    """A URL, as text if it holds no password, or where it is: exactly one of the three."""

    #: The URL. One with a password is named by one of the other two.
    url: str | None = None
    #: Name of an environment variable that holds the URL.
    url_env: str | None = None
    #: Path of a file that holds nothing but the URL.
    url_file: Path | None = None
    #: What was read; never written in the configuration.
    read: SecretStr | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"url": data}
        if not isinstance(data, dict):
            return data
        if "read" in data:
            raise ValueError("no such setting: read")
        url = data.get("url")
        read = referred(data, "url")
        if (url is None) == (read is None):
            raise ValueError("set one of url, url_env and url_file")
        if isinstance(url, str) and _WITH_PASSWORD.search(url):
            raise ValueError("write no password in the configuration: name the URL with url_env or url_file")
        return {**data, "read": url if read is None else read}

    @property
    def address(self) -> str:
        """The URL, with its password."""
        return self.read.get_secret_value() if self.read is not None else ""

    def __str__(self) -> str:
        return self.url or f"{self.url_env or self.url_file}"


_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@|[?&](?:password|passwd|token)=", re.IGNORECASE)
