"""Azure OpenAI: what of its addresses depends on settings, and Entra's tokens."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trunkline_server.errors import LLMAuthenticationError
from trunkline_server.providers.auth import Authorizer, BearerToken, Token
from trunkline_server.providers.dialects.openai_chat.quirks import KEY, Quirks
from trunkline_server.providers.row import Row, Setting

#: Versions that have dates: each deployment has an address of its own. The others are words beside the v1 address.
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_WORDS = ("preview", "latest", "v1")
_DEPLOYMENT = "/deployments/{model}"

#: Hosts that the credentials of the machine are for, and the cloud that they belong to.
_HOST = re.compile(r"\.(?:openai|cognitiveservices|services\.ai)\.(azure\.(?:com|us|cn))$")
_SCOPE = "https://cognitiveservices.{}/.default"

SETTINGS: Mapping[str, Setting] = {
    "endpoint": Setting("the address of the resource, e.g. https://NAME.openai.azure.com", ("AZURE_OPENAI_ENDPOINT",)),
    "api_version": Setting(
        "a dated version, e.g. 2024-10-21, for the older addresses of deployments; or preview",
        ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION"),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class AzureRow(Row):
    """A resource. The model is the name of a deployment; without a key, the machine's Entra identity is asked."""

    def address(self, settings: Mapping[str, str]) -> str:
        endpoint = settings.get("endpoint", "").rstrip("/")
        if not endpoint:
            raise ValueError(
                "Azure needs settings.endpoint or AZURE_OPENAI_ENDPOINT, e.g. https://NAME.openai.azure.com"
            )
        dated = _DATED.fullmatch(settings.get("api_version", ""))
        return f"{endpoint.removesuffix('/v1').removesuffix('/openai')}/openai{'' if dated else '/v1'}"

    def configured(self, settings: Mapping[str, str]) -> Row:
        version = settings.get("api_version", "")
        if not version:
            return self
        dated = _DATED.fullmatch(version)
        if not dated and version not in _WORDS:
            raise ValueError(f"settings.api_version {version!r} is neither a date as 2024-10-21 nor preview")
        row = dataclasses.replace(self, query={"api-version": version})
        quirks = row.capabilities.quirks.get(KEY)
        if not dated or not isinstance(quirks, Quirks):
            return row
        # Only chat and embeddings are asked of a deployment: Responses has one address for all.
        quirks = dataclasses.replace(
            quirks, chat_path=_DEPLOYMENT + quirks.chat_path, embeddings_path=_DEPLOYMENT + quirks.embeddings_path
        )
        capabilities = dataclasses.replace(row.capabilities, quirks={**row.capabilities.quirks, KEY: quirks})
        return dataclasses.replace(row, capabilities=capabilities)

    def authorizer(self, key: str, settings: Mapping[str, str], base_url: str) -> Authorizer | None:
        cloud = _HOST.search(urlsplit(base_url).hostname or "")
        return BearerToken(Identity(_SCOPE.format(cloud.group(1)))) if cloud and not key else None


class Identity:
    """The machine's Entra identity: environment, workload, managed identity, or a developer's sign-in.

    Calling it fetches a token. Raises ValueError when it is made where azure-identity is missing.
    """

    def __init__(self, scope: str) -> None:
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError:
            raise ValueError(
                "without a key, Azure needs the package azure-identity: pip install 'trunkline-server[azure]'"
            ) from None
        self._credential: Any = DefaultAzureCredential()
        self._scope = scope

    def __call__(self) -> Token:
        from azure.core.exceptions import AzureError

        try:
            token = self._credential.get_token(self._scope)
        except AzureError as error:
            said = str(error).partition("\n")[0][:300]
            raise LLMAuthenticationError(
                f"no Entra token for Azure: {said}; set a key, or sign the machine in"
            ) from error
        return Token(token.token, float(token.expires_on))
