"""Going on with an answer that broke off: what was delivered is sent as the beginning of the answer."""

from __future__ import annotations

import dataclasses
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.estimate import tokens
from trunkline_server.providers import jsontext
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Prefill, UpstreamRequest

CompletionSpec = completion_pb2.CompletionSpec

_SHAPED = frozenset({"json_object", "json_schema", "grammar"})


def obstacle(spec: CompletionSpec, assembly: Assembly) -> str:
    """Why nobody can go on with the answer; "" if somebody may."""
    if spec.params.n > 1:
        return "there are several answers"
    if spec.HasField("audio_output"):
        return "it has sound"
    if spec.response_format.WhichOneof("format") in _SHAPED:
        return "it has a prescribed shape, which would begin anew"
    if spec.params.HasField("reasoning"):
        return "the model was asked to reason"
    if assembly.said() is None:
        return "it is not one unfinished text: there are tool calls, reasoning or other parts in it"
    return ""


def continued(spec: CompletionSpec, said: str) -> CompletionSpec:
    """The spec with the beginning of the answer as its last message, and a limit less what was used of it.

    `said` does not end with white space.
    """
    made = CompletionSpec()
    made.CopyFrom(spec)
    if made.messages[-1].role != message_pb2.ROLE_ASSISTANT:
        made.messages.add(role=message_pb2.ROLE_ASSISTANT)
    parts = made.messages[-1].parts
    if parts and parts[-1].WhichOneof("kind") == "text":
        # The caller had begun the answer already.
        parts[-1].text.text += said
    else:
        parts.add().text.text = said
    if made.params.HasField("max_output_tokens"):
        made.params.max_output_tokens = max(1, made.params.max_output_tokens - tokens(len(said.encode())))
    return made


def marked(request: UpstreamRequest, prefill: Prefill) -> UpstreamRequest:
    """The request with what tells the provider that its last message is to be gone on with."""
    if not prefill.message and not prefill.body:
        return request
    body: dict[str, Any] = jsontext.loads(request.body)
    body.update(prefill.body)
    body["messages"][-1].update(prefill.message)
    return dataclasses.replace(request, body=jsontext.dumps(body))
