"""Cohere's own API: chat and embeddings of its second version, models of its first.

See https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

from functools import partial

from trunkline_server.providers import classify
from trunkline_server.providers.dialects.cohere_chat import embeddings, request
from trunkline_server.providers.dialects.cohere_chat.stream import EventDecoder, read_whole
from trunkline_server.providers.listing import Listing


class CohereChat(Listing):
    """See `providers.base.Dialect`."""

    name = "cohere_chat"
    framing = "sse"
    encode = staticmethod(request.encode)
    decode = staticmethod(read_whole)
    decoder = EventDecoder
    classify = staticmethod(partial(classify.classify, fields=request.FIELDS))
    encode_embeddings = staticmethod(embeddings.encode_embeddings)
    decode_embeddings = staticmethod(embeddings.decode_embeddings)
    models_path = "/v1/models?page_size=1000"
    model_id = "name"
