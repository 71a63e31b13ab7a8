"""What a caller of the gateway saw, as a line of the scorer's format. It knows nothing of what was expected."""

from __future__ import annotations

import json
from typing import Any

from trunkline import TrunklineError
from trunkline.v1 import completion_pb2, embedding_service_pb2, model_service_pb2

#: Reasons of the contract to the corpus's error classes.
CLASSES = {
    "LLM_CONNECTION": "connection",
    "LLM_TIMEOUT": "timeout",
    "LLM_RATE_LIMITED": "rate_limit",
    "LLM_INSUFFICIENT_CREDITS": "insufficient_quota",
    "LLM_AUTHENTICATION": "authentication",
    "LLM_PERMISSION_DENIED": "permission_denied",
    "LLM_NOT_FOUND": "not_found",
    "LLM_BAD_REQUEST": "bad_request",
    "LLM_CONTEXT_WINDOW_EXCEEDED": "context_window_exceeded",
    "LLM_REQUEST_TOO_LARGE": "context_window_exceeded",
    "LLM_UNPROCESSABLE": "unprocessable",
    "LLM_CONTENT_FILTERED": "content_filtered",
    "LLM_OVERLOADED": "overloaded",
    "LLM_SERVER_ERROR": "server_error",
    "LLM_EMPTY_RESPONSE": "malformed_response",
    "LLM_INVALID_RESPONSE": "malformed_response",
    "LLM_CONFLICT": "bad_request",
}

_FINISH = {
    completion_pb2.FINISH_REASON_STOP: "stop",
    completion_pb2.FINISH_REASON_LENGTH: "length",
    completion_pb2.FINISH_REASON_CONTEXT_WINDOW: "length",
    completion_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    completion_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    completion_pb2.FINISH_REASON_REFUSAL: "refusal",
    completion_pb2.FINISH_REASON_PAUSE: "pause",
}

_COUNTS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "reasoning_tokens": "reasoning_tokens",
}


def of_completion(completion: completion_pb2.Completion) -> dict[str, Any]:
    """A completion, whole or collected."""
    choice = completion.choices[0] if completion.choices else completion_pb2.Choice()
    parts = choice.message.parts
    return {
        "outcome": "ok",
        "text": "".join(part.text.text for part in parts if part.HasField("text")),
        "reasoning": "".join(part.reasoning.text for part in parts if part.HasField("reasoning")),
        "refusal": "".join(part.refusal.text for part in parts if part.HasField("refusal")) or None,
        "tool_calls": [
            _call(part.tool_call)
            for part in parts
            if part.HasField("tool_call") and not part.tool_call.provider_executed
        ],
        "finish": _FINISH.get(choice.finish_reason, "other"),
        "usage": _usage(completion),
        "model": completion.model or None,
        "response_id": completion.provider_response_id or None,
    }


def of_embeddings(answer: embedding_service_pb2.CreateEmbeddingsResponse) -> dict[str, Any]:
    """Vectors."""
    first = list(answer.embeddings[0].values) if answer.embeddings else []
    return {
        "outcome": "ok",
        "vectors": len(answer.embeddings),
        "dims": len(first),
        "first3": first[:3],
        "usage_input_tokens": answer.usage.input_tokens if answer.usage.HasField("input_tokens") else None,
    }


def of_count(tokens: int) -> dict[str, Any]:
    """Counted tokens."""
    return {"outcome": "ok", "tokens": tokens}


def of_models(answer: model_service_pb2.ListModelsResponse, total: int) -> dict[str, Any]:
    """Listed models."""
    return {"outcome": "ok", "count": total, "first3": [model.provider_model for model in answer.models[:3]]}


def of_error(error: TrunklineError, text_before: str | None = None) -> dict[str, Any]:
    """A status and its details. `text_before`: what a stream had said before."""
    detail = error.detail
    got: dict[str, Any] = {
        "outcome": "error",
        "class": CLASSES.get(error.reason, error.reason or error.code.name),
        "http_status": detail.upstream_status if detail is not None and detail.HasField("upstream_status") else None,
        "provider_code": (detail.provider_code or None) if detail is not None else None,
        # A wait that the gateway made up is no word of the provider's.
        "retry_after_s": None if error.metadata.get("retryDelaySource") == "gateway" else error.retry_after,
        "request_id": (detail.provider_request_id or None) if detail is not None else None,
    }
    if text_before is not None:
        got["text_before"] = text_before
    return got


def _call(call: Any) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments_json)
    except ValueError:
        arguments = {"__raw__": call.arguments_json}
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _usage(completion: completion_pb2.Completion) -> dict[str, int | None] | None:
    usage = completion.usage
    if not completion.HasField("usage"):
        return None
    reported = {field.name for field, _ in usage.ListFields()}
    return {name: getattr(usage, field) if field in reported else None for name, field in _COUNTS.items()}
