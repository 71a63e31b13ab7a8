"""Requests to AWS: the credentials of the machine or of a caller, and the signature that they make.

botocore is an optional dependency and is imported on first use. See
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from trunkline_server.errors import LLMAuthenticationError, LLMConnectionError, LLMError
from trunkline_server.providers.auth import Kept

#: A key that is no bearer token but a pair: "ACCESS_KEY_ID:SECRET_ACCESS_KEY", and ":SESSION_TOKEN" if it has one.
PAIR = re.compile(r"((?:AKIA|ASIA)[A-Z0-9]{12,124}):([A-Za-z0-9/+=]{16,128})(?::(\S+))?")

#: Seconds for which credentials are used without asking the chain again. botocore gives out none that end sooner.
LEASE = 600.0
#: Bodies above this size are hashed in a thread.
LARGE = 256 * 1024

_MISSING = "AWS needs botocore: pip install 'trunkline-server[bedrock]'"


def require() -> None:
    """Raises ValueError where botocore is missing."""
    if importlib.util.find_spec("botocore") is None:
        raise ValueError(_MISSING)


class SigV4:
    """Signs each request with credentials that `fetch` returns, asked for in a thread and again in time."""

    def __init__(
        self,
        fetch: Callable[[], Any],
        *,
        region: str,
        service: str = "bedrock",
        clock: Callable[[], float] = time.time,
    ) -> None:
        require()
        self._credentials = Kept(lambda: (fetch(), clock() + LEASE), clock=clock)
        self._region = region
        self._service = service

    async def authorize(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        credentials = await self._credentials.get()
        if len(body) > LARGE:
            return await asyncio.to_thread(self._sign, credentials, method, url, headers, body)
        return self._sign(credentials, method, url, headers, body)

    def _sign(
        self, credentials: Any, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        # What a proxy on the way may change is not signed.
        signed = {name: value for name, value in headers.items() if name == "content-type" or name.startswith("x-amz")}
        request = AWSRequest(method=method, url=url, headers=signed, data=body)
        SigV4Auth(credentials, self._service, self._region).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}


class Chain:
    """The credentials of the machine by botocore's chain: environment, profile, web identity, container, instance.

    With `role` that role is assumed with them. Calling it returns them frozen; it blocks, and raises LLMError. To make
    it raises ValueError as `session_of` does.
    """

    def __init__(self, *, region: str, profile: str = "", role: str = "") -> None:
        self._region = region
        self._session = session_of(profile)
        self._role = role
        self._found: Any = None

    def __call__(self) -> Any:
        from botocore import exceptions

        try:
            if self._found is None:
                self._found = self._resolve()
            return self._found.get_frozen_credentials()
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as exc:
            raise LLMConnectionError("AWS's server of credentials cannot be reached") from exc
        except (exceptions.BotoCoreError, exceptions.ClientError, RuntimeError) as exc:
            # botocore's own text goes nowhere: it may hold names of accounts and roles.
            raise LLMAuthenticationError(
                "AWS gives no credentials for the gateway; renew those of its profile or role"
            ) from exc

    def _resolve(self) -> Any:
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        found = self._session.get_credentials()
        if found is None:
            raise _nothing()
        if not self._role:
            return found
        fetcher = AssumeRoleCredentialFetcher(
            functools.partial(self._session.create_client, region_name=self._region), found, self._role
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def pair_of(key: str) -> Any:
    """The frozen credentials that a key of two or three parts holds; None for one that is no such key."""
    match = PAIR.fullmatch(key)
    if match is None:
        return None
    require()
    from botocore.credentials import Credentials

    return Credentials(*match.groups()).get_frozen_credentials()


def secrets_in(key: str) -> list[str]:
    """What of a key must never be shown: all of it, and each secret of its parts."""
    match = PAIR.fullmatch(key)
    return [part for part in (key, *(match.groups()[1:] if match is not None else ())) if part]


def session_of(profile: str) -> Any:
    """Raises ValueError where botocore is missing or knows no such profile."""
    require()
    import botocore.session

    # It logs what servers of credentials say, which is told to nobody here.
    logging.getLogger("botocore").propagate = False
    session = botocore.session.Session(profile=profile or None)
    if profile and profile not in session.available_profiles:
        raise ValueError(f"settings.profile: there is no AWS profile {profile!r} on this machine")
    return session


def region_of(profile: str) -> str:
    """The region of a profile; "" if it names none. Raises ValueError as `session_of` does."""
    if importlib.util.find_spec("botocore") is None:
        return ""
    from botocore.exceptions import BotoCoreError

    try:
        return session_of(profile).get_config_variable("region") or ""
    except BotoCoreError:
        raise ValueError("the AWS profile that AWS_PROFILE names is not on this machine, or cannot be read") from None


def _nothing() -> LLMError:
    return LLMAuthenticationError(
        "the gateway has no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or settings.profile, or run it where AWS gives it a role"
    )
