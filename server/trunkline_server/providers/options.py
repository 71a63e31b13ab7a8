"""What a caller gives a provider directly: members of its request's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline_server.providers.base import Target
from trunkline_server.providers.jsontext import loads, merged


def with_options(body: dict[str, Any], options: Mapping[str, str], target: Target) -> dict[str, Any]:
    """The body with the caller's options for this kind of provider, and then for this one, merged into it."""
    for name in dict.fromkeys((target.origin, target.provider)):
        text = options.get(name)
        if text:
            body = merged(body, loads(text))
    return body
