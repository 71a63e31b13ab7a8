"""`otlp:`: each call and each attempt as spans, over OTLP/gRPC.

`otlp://HOST:4317`, `otlps://HOST:4317` with TLS. `?content=1` adds what was said, `?headers_env=NAME` headers such as a
key, as NAME=VALUE pairs with commas between them, `?ca_file=PATH` an authority, `?service=NAME` what the service is
called.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from trunkline_server.traces.base import BackendError
from trunkline_server.traces.otlp.sink import OtlpSink, Target

__all__ = ["OtlpBackend"]

_OPTIONS = {"content": "0", "headers_env": "", "ca_file": "", "service": "trunkline"}


class OtlpBackend:
    """One receiver."""

    name = "otlp"

    def __init__(self, url: str, state_dir: Path) -> None:
        """Raises BackendError with all that is wrong."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        wrong = [
            f"no option {name!r}; there are {', '.join(_OPTIONS)}" for name in sorted(options.keys() - _OPTIONS.keys())
        ]
        options = {**_OPTIONS, **options}
        try:
            port = parts.port or 4317
        except ValueError:
            port = 0
        if not parts.hostname or not port or parts.username or parts.password or parts.path not in ("", "/"):
            wrong.append(f"write {parts.scheme}://HOST:PORT, and headers with ?headers_env=NAME")
        if options["content"] not in ("0", "1"):
            wrong.append(f"content is {options['content']!r}: give 1 to export what was said, else 0")
        headers = _headers(options["headers_env"], wrong)
        authority = _authority(options["ca_file"], parts.scheme == "otlps", wrong)
        if wrong:
            raise BackendError(f"{parts.scheme}: {'; '.join(wrong)}")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._target = Target(f"{host}:{port}", parts.scheme == "otlps", authority, headers)
        self._content = options["content"] == "1"
        self._service = options["service"]

    def sink(self) -> OtlpSink:
        return OtlpSink(self._target, content=self._content, service=self._service)

    def reader(self) -> None:
        """OTLP only takes."""


def _headers(variable: str, wrong: list[str]) -> tuple[tuple[str, str], ...]:
    if not variable:
        return ()
    pairs = [pair.partition("=") for pair in os.environ.get(variable, "").split(",") if pair.strip()]
    if not pairs or not all(name.strip() and equals for name, equals, _ in pairs):
        wrong.append(f"the environment variable {variable} (headers_env) holds no NAME=VALUE pairs")
        return ()
    return tuple((name.strip().lower(), unquote(value.strip())) for name, _, value in pairs)


def _authority(path: str, secure: bool, wrong: list[str]) -> bytes | None:
    if not path:
        return None
    if not secure:
        wrong.append("ca_file is for otlps:")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        wrong.append(f"cannot read {path} (ca_file): {error.strerror}")
        return None
