"""OpenAI's Responses, as OpenAI and all who offer the same API speak it."""

from __future__ import annotations

from functools import partial

from trunkline_server.providers import classify
from trunkline_server.providers.dialects.openai_responses import request, response
from trunkline_server.providers.dialects.openai_responses.stream import StreamDecoder, decode
from trunkline_server.providers.listing import Listing


class OpenAIResponses(Listing):
    """See `providers.base.Dialect`. What a provider does differently is in `quirks.Quirks`."""

    name = "openai_responses"
    framing = "sse"
    encode = staticmethod(request.encode)
    decode = staticmethod(decode)
    decoder = StreamDecoder
    classify = staticmethod(partial(classify.classify, fields=response.FIELDS))
    encode_count = staticmethod(request.encode_count)
    decode_count = staticmethod(response.decode_count)
