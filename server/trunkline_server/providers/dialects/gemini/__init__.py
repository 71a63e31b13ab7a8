"""Gemini: generateContent and what belongs to it, as Google's own API and Vertex AI speak it."""

from __future__ import annotations

from trunkline_server.providers.dialects.gemini import embeddings, errors, request
from trunkline_server.providers.dialects.gemini.models import capabilities
from trunkline_server.providers.dialects.gemini.stream import ChunkDecoder, decode

__all__ = ["Gemini", "VertexGemini", "capabilities"]


class _GenerateContent:
    """What both have in common. See `providers.base.Dialect`."""

    framing = "sse"
    decode = staticmethod(decode)
    decoder = ChunkDecoder
    classify = staticmethod(errors.classify)
    decode_count = staticmethod(embeddings.decode_count)


class Gemini(_GenerateContent):
    """Google's own API. Also embeds, counts tokens and lists models."""

    name = "gemini"
    encode = staticmethod(request.encode)
    encode_count = staticmethod(request.encode_count)
    encode_embeddings = staticmethod(embeddings.encode_batch)
    decode_embeddings = staticmethod(embeddings.decode_batch)
    models_request = staticmethod(embeddings.models_request)
    decode_models = staticmethod(embeddings.decode_models)


class VertexGemini(_GenerateContent):
    """Vertex AI. Also embeds and counts tokens; its list of models is not one of what can be called."""

    name = "vertex_gemini"
    encode = staticmethod(request.encode_vertex)
    encode_count = staticmethod(request.encode_vertex_count)
    encode_embeddings = staticmethod(embeddings.encode_predict)
    decode_embeddings = staticmethod(embeddings.decode_predict)
