"""trunkline: every LLM provider behind one typed gRPC contract.

    from trunkline import Client, text_of

    with Client("127.0.0.1:50051") as client:
        print(text_of(client.complete("Say hello.", model="fake/echo")))

`AsyncClient` has the same methods as coroutines. Messages are those of the contract, in `trunkline.v1`.
"""

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
from trunkline.collect import Collector, collect
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
