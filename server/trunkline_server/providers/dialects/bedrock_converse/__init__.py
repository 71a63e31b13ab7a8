"""Converse and ConverseStream: one wire of AWS Bedrock for the models of all makers."""

from __future__ import annotations

from trunkline_server.providers.dialects.bedrock_converse import embeddings, errors, request, response
from trunkline_server.providers.dialects.bedrock_converse.models import capabilities
from trunkline_server.providers.dialects.bedrock_converse.request import counted_path, model_path
from trunkline_server.providers.dialects.bedrock_converse.stream import StreamDecoder

__all__ = ["Bedrock", "BedrockConverse", "capabilities", "counted_path", "model_path"]


class Bedrock:
    """What is the same whatever wire a model is spoken to in: lists of models, embeddings, counts of tokens."""

    framing = "eventstream"
    decode_count = staticmethod(response.decode_count)
    models_request = staticmethod(request.models)
    next_models_request = staticmethod(request.next_models)
    decode_models = staticmethod(response.decode_models)
    encode_embeddings = staticmethod(embeddings.encode_embeddings)
    decode_embeddings = staticmethod(embeddings.decode_embeddings)


class BedrockConverse(Bedrock):
    """The dialect. Also counts tokens, lists models, and embeds with the models that do."""

    name = "bedrock_converse"
    encode = staticmethod(request.encode)
    decode = staticmethod(response.decode)
    decoder = StreamDecoder
    classify = staticmethod(errors.classify)
    encode_count = staticmethod(request.encode_count)
