"""trunkline: every LLM provider behind one typed gRPC contract.

    from trunkline import Client, text_of

    with Client("127.0.0.1:50051") as client:
        print(text_of(client.complete("Say hello.", model="fake/echo")))

`AsyncClient` has the same methods as coroutines. Messages are those of the contract, in `trunkline.v1`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The function has the name of its module, which would take its place if it came later.
from trunkline.collect import Collector, collect

if TYPE_CHECKING:
    from trunkline._async.client import AsyncClient
    from trunkline._async.stream import AsyncCompletionStream
    from trunkline._async.traces import AsyncTraces
    from trunkline._sync.client import Client
    from trunkline._sync.stream import CompletionStream
    from trunkline._sync.traces import Traces
    from trunkline.builders import (
        arguments_of,
        assistant,
        audio,
        developer,
        document,
        image,
        system,
        text,
        text_of,
        tool,
        tool_calls_of,
        tool_result,
        user,
    )
    from trunkline.channel import Tls, __version__
    from trunkline.errors import (
        AuthenticationError,
        BudgetExhausted,
        Cancelled,
        Conflict,
        ContentFiltered,
        ContextWindowExceeded,
        InsufficientCredits,
        InternalError,
        InvalidRequest,
        NotFound,
        Overloaded,
        ParseError,
        PermissionDenied,
        ProviderAuthenticationError,
        RateLimited,
        RequestTooLarge,
        StreamIncomplete,
        StreamRuleBroken,
        TimedOut,
        TrunklineError,
        Unavailable,
        Unimplemented,
        Unreachable,
        UnsupportedParameter,
        Violation,
    )
    from trunkline.rules import StreamRules
    from trunkline.schema import Parsed

#: Which module has which names. They are loaded when they are asked for: who wants the messages alone, as the server
#: does, loads no client.
_HOMES = {
    "trunkline._async.client": ("AsyncClient",),
    "trunkline._async.stream": ("AsyncCompletionStream",),
    "trunkline._async.traces": ("AsyncTraces",),
    "trunkline._sync.client": ("Client",),
    "trunkline._sync.stream": ("CompletionStream",),
    "trunkline._sync.traces": ("Traces",),
    "trunkline.builders": (
        "arguments_of",
        "assistant",
        "audio",
        "developer",
        "document",
        "image",
        "system",
        "text",
        "text_of",
        "tool",
        "tool_calls_of",
        "tool_result",
        "user",
    ),
    "trunkline.channel": (
        "Tls",
        "__version__",
    ),
    "trunkline.errors": (
        "AuthenticationError",
        "BudgetExhausted",
        "Cancelled",
        "Conflict",
        "ContentFiltered",
        "ContextWindowExceeded",
        "InsufficientCredits",
        "InternalError",
        "InvalidRequest",
        "NotFound",
        "Overloaded",
        "ParseError",
        "PermissionDenied",
        "ProviderAuthenticationError",
        "RateLimited",
        "RequestTooLarge",
        "StreamIncomplete",
        "StreamRuleBroken",
        "TimedOut",
        "TrunklineError",
        "Unavailable",
        "Unimplemented",
        "Unreachable",
        "UnsupportedParameter",
        "Violation",
    ),
    "trunkline.rules": ("StreamRules",),
    "trunkline.schema": ("Parsed",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME[name]), name)
    return found


__all__ = [
    "AsyncClient",
    "AsyncCompletionStream",
    "AsyncTraces",
    "AuthenticationError",
    "BudgetExhausted",
    "Cancelled",
    "Client",
    "Collector",
    "CompletionStream",
    "Conflict",
    "ContentFiltered",
    "ContextWindowExceeded",
    "InsufficientCredits",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "Overloaded",
    "ParseError",
    "Parsed",
    "PermissionDenied",
    "ProviderAuthenticationError",
    "RateLimited",
    "RequestTooLarge",
    "StreamIncomplete",
    "StreamRuleBroken",
    "StreamRules",
    "TimedOut",
    "Tls",
    "Traces",
    "TrunklineError",
    "Unavailable",
    "Unimplemented",
    "Unreachable",
    "UnsupportedParameter",
    "Violation",
    "__version__",
    "arguments_of",
    "assistant",
    "audio",
    "collect",
    "developer",
    "document",
    "image",
    "system",
    "text",
    "text_of",
    "tool",
    "tool_calls_of",
    "tool_result",
    "user",
]


def __dir__() -> list[str]:
    return __all__
