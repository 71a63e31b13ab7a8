"""Ollama's own API: chat, embeddings and models. See https://docs.ollama.com/api"""

from __future__ import annotations

from functools import partial

from trunkline_server.providers import classify
from trunkline_server.providers.dialects.ollama_chat import embeddings, request
from trunkline_server.providers.dialects.ollama_chat.response import LineDecoder, decode
from trunkline_server.providers.listing import Listing


class OllamaChat(Listing):
    """See `providers.base.Dialect`."""

    name = "ollama_chat"
    framing = "ndjson"
    encode = staticmethod(request.encode)
    decode = staticmethod(decode)
    decoder = LineDecoder
    classify = staticmethod(partial(classify.classify, fields=request.FIELDS))
    encode_embeddings = staticmethod(embeddings.encode_embeddings)
    decode_embeddings = staticmethod(embeddings.decode_embeddings)
    models_path = "/api/tags"
    model_id = "name"
