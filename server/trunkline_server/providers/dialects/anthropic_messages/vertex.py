"""Anthropic's requests as Vertex AI takes them: the address names the model, the body the version.

See https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude
"""

from __future__ import annotations

from urllib.parse import quote

from trunkline.v1 import completion_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.anthropic_messages.request import Draft, counted_of, draft_of
from trunkline_server.providers.jsontext import dumps

VERSION = "vertex-2023-10-16"
_MODELS = "/publishers/anthropic/models/"


def encode(spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """Encodes a spec that passed validation."""
    draft = draft_of(spec, target, notes)
    del draft.body["model"]
    if stream:
        draft.body["stream"] = True
    method = "streamRawPredict" if stream else "rawPredict"
    return _request(f"{_MODELS}{quote(_model(target), safe='@')}:{method}", draft)


def encode_count(spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """The same prompt, without what only its answer needs. Here the body names the model."""
    draft = counted_of(spec, target, notes)
    draft.body["model"] = _model(target)
    return _request(f"{_MODELS}count-tokens:rawPredict", draft)


def _model(target: Target) -> str:
    """The model's name without its publisher's."""
    return target.model.rpartition("/")[2]


def _request(path: str, draft: Draft) -> UpstreamRequest:
    headers = (("anthropic-beta", ",".join(sorted(draft.betas))),) if draft.betas else ()
    return UpstreamRequest(path, dumps({"anthropic_version": VERSION, **draft.body}), headers)
