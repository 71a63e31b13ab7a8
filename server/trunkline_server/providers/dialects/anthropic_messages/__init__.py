"""Anthropic Messages: the wire of api.anthropic.com, and of the clouds and servers that speak it."""

from __future__ import annotations

from trunkline_server.providers.dialects.anthropic_messages import errors, request, response, vertex
from trunkline_server.providers.dialects.anthropic_messages.stream import StreamDecoder

__all__ = ["AnthropicMessages", "VertexAnthropic"]


class _Messages:
    """What they answer, wherever they run. See `providers.base.Dialect`."""

    framing = "sse"
    decode = staticmethod(response.decode)
    decoder = StreamDecoder
    classify = staticmethod(errors.classify)
    decode_count = staticmethod(response.decode_count)


class AnthropicMessages(_Messages):
    """The dialect. Also counts tokens and lists models."""

    name = "anthropic_messages"
    encode = staticmethod(request.encode)
    encode_count = staticmethod(request.encode_count)
    models_request = staticmethod(request.models_request)
    decode_models = staticmethod(response.decode_models)


class VertexAnthropic(_Messages):
    """The same at Vertex AI, where the address names the model. Also counts tokens."""

    name = "vertex_anthropic"
    encode = staticmethod(vertex.encode)
    encode_count = staticmethod(vertex.encode_count)
