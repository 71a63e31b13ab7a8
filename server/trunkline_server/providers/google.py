"""Google: Gemini's own API, and Vertex AI with Google's and Anthropic's models."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trunkline_server.errors import LLMAuthenticationError, LLMConnectionError, LLMError
from trunkline_server.providers import claude
from trunkline_server.providers.auth import Authorizer, BearerToken, Token
from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.dialects.gemini import capabilities
from trunkline_server.providers.row import Row, Setting, Tongue

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]*")
_CLAUDE = re.compile(r"(?:(?:publishers/)?anthropic/(?:models/)?)?claude")

#: Hosts of locations that are not the name of a region.
_HOSTS = {
    "global": "aiplatform.googleapis.com",
    "us": "aiplatform.us.rep.googleapis.com",
    "eu": "aiplatform.eu.rep.googleapis.com",
}


@dataclass(frozen=True, slots=True, eq=False)
class GeminiRow(Row):
    """A row whose models are told apart by the dialect's own table."""

    def capabilities_of(self, model: str) -> Capabilities:
        return capabilities(model)


@dataclass(frozen=True, slots=True, eq=False)
class VertexRow(Row):
    """Vertex AI: a project's location, a token for each request; or an API key and no project (express mode)."""

    def address(self, settings: Mapping[str, str]) -> str:
        location = _checked("location", settings.get("location") or "global")
        host = _HOSTS.get(location) or f"{location}-aiplatform.googleapis.com"
        base = f"https://{host}/{settings.get('api_version') or 'v1'}"
        project = _project(settings)
        return f"{base}/projects/{project}/locations/{location}" if project else base

    def authorizer(self, key: str, settings: Mapping[str, str], base_url: str) -> Authorizer | None:
        host = urlsplit(base_url).hostname or ""
        file = settings.get("service_account_file", "")
        if key or not (file or host.endswith(".googleapis.com")):
            return None
        if host.endswith(".googleapis.com") and "/projects/" not in base_url:
            raise ValueError(
                "Vertex AI needs settings.project or GOOGLE_CLOUD_PROJECT; or an API key, which goes without a project"
            )
        return BearerToken(Credentials(file))

    def capabilities_of(self, model: str) -> Capabilities:
        return _vertex_capabilities(model)


class Credentials:
    """Google's application default credentials, or those of a service account's file. Calling it fetches a token.

    Blocks: a token comes from a file, Google's token server or the metadata server of the machine. Raises ValueError
    when it is made where google-auth is missing or the file cannot be read.
    """

    def __init__(self, service_account_file: str = "") -> None:
        try:
            import google.auth.transport.requests
            import google.oauth2.service_account
        except ImportError:
            raise ValueError("Vertex AI needs google-auth: pip install 'trunkline-server[vertex]'") from None
        self._file = service_account_file
        self._credentials: Any = None
        if service_account_file:
            try:
                self._credentials = google.oauth2.service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                    service_account_file, scopes=[_SCOPE]
                )
            except (OSError, ValueError, google.auth.exceptions.GoogleAuthError):
                raise ValueError(
                    f"settings.service_account_file {service_account_file!r} is not a key file of a service account"
                ) from None

    def __call__(self) -> Token:
        """A fresh token. Raises LLMError."""
        import google.auth
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[_SCOPE])
            self._credentials.refresh(Request())
        except exceptions.GoogleAuthError as exc:
            raise _failure(exc) from exc
        return self._token()

    def _token(self) -> Token:
        found = self._credentials
        expiry: dt.datetime | None = found.expiry
        if expiry is not None and expiry.tzinfo is None:
            expiry = expiry.replace(tzinfo=dt.UTC)
        payer = getattr(found, "quota_project_id", None)
        headers = {"x-goog-user-project": payer} if payer else None
        return Token(found.token or "", expiry.timestamp() if expiry else None, headers)


def _failure(exc: Exception) -> LLMError:
    """Our error for one of google-auth's. Its own text goes nowhere: it may hold answers of token servers."""
    from google.auth import exceptions

    if isinstance(exc, exceptions.DefaultCredentialsError):
        return LLMAuthenticationError(
            "the gateway has no Google credentials: set GOOGLE_APPLICATION_CREDENTIALS, settings.service_account_file "
            "or an API key, or run it where Google gives it an identity"
        )
    if isinstance(exc, exceptions.TransportError) or getattr(exc, "retryable", False):
        return LLMConnectionError("Google's token server cannot be reached")
    return LLMAuthenticationError("Google gives no token for the gateway's credentials; renew them")


def _project(settings: Mapping[str, str]) -> str:
    project = settings.get("project", "")
    file = settings.get("service_account_file", "")
    if not project and file:
        project = _project_of(file)
    return _checked("project", project) if project else ""


@lru_cache(maxsize=64)
def _project_of(file: str) -> str:
    """The project that a service account belongs to."""
    from trunkline_server.providers.jsontext import try_loads

    try:
        value = try_loads(Path(file).read_bytes())
    except OSError:
        return ""
    project = value.get("project_id") if isinstance(value, dict) else None
    return project if isinstance(project, str) else ""


def _checked(name: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"settings.{name} {value!r} is none: write small letters, digits and hyphens")
    return value


@lru_cache(maxsize=4096)
def _vertex_capabilities(model: str) -> Capabilities:
    if _CLAUDE.match(model):
        return claude.capabilities(model)
    found = capabilities(model)
    # gemini-embedding-001 takes one input at a time, the older models 250, of 20,000 tokens in all.
    return dataclasses.replace(found, embedding_batch=1 if "gemini-embedding" in model else 100)


GEMINI = GeminiRow(
    base_url="https://generativelanguage.googleapis.com/v1beta",
    key_env="GEMINI_API_KEY",
    auth="x-goog-api-key",
    dialect="gemini",
)

VERTEX = VertexRow(
    base_url="",
    key_env="",
    auth="x-goog-api-key",
    dialect="vertex_gemini",
    # Anthropic's signatures hold on every cloud.
    tongues=(Tongue(_CLAUDE.pattern, "vertex_anthropic", origin="anthropic"),),
    settings={
        "project": Setting("the id of a Google Cloud project", ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")),
        "location": Setting(
            "a region, or global, us or eu", ("GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION"), "global"
        ),
        "service_account_file": Setting("path of a service account's key file, in place of the default credentials"),
        "api_version": Setting("v1 or v1beta1", default="v1"),
    },
)
