"""Servers that one runs oneself and that are compatible with OpenAI: the address is in the configuration."""

from __future__ import annotations

from trunkline_server.providers.base import Prefill
from trunkline_server.providers.chat import LOGPROBS, PENALTIES, SAMPLERS, THINK, TOOLS, can
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks
from trunkline_server.providers.row import Row

#: The last message is left open instead of being closed and a new one begun.
_OPEN_ENDED = Prefill(body={"continue_final_message": True, "add_generation_prompt": False})

SERVERS: dict[str, Row] = {
    "vllm": Row(
        "",
        "",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning="template",
                reasoning_back="reasoning_content",
                video=True,
                participants=True,
                grammars={"regex": ("structured_outputs", "regex"), "ebnf": ("structured_outputs", "grammar")},
            ),
            audio=True,
            embeddings=True,
            prefill=_OPEN_ENDED,
        ),
    ),
    "sglang": Row(
        "",
        "",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning="template",
                reasoning_back="reasoning_content",
                video=True,
                grammars={"regex": ("regex",), "ebnf": ("ebnf",)},
            ),
            audio=True,
            embeddings=True,
            prefill=Prefill(body={"continue_final_message": True}),
        ),
    ),
    "llamacpp": Row(
        "",
        "",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(
                renamed={"repetition_penalty": "repeat_penalty"},
                reasoning="template",
                reasoning_back="reasoning_content",
                grammars={"ebnf": ("grammar",)},
                base64_vectors=False,
            ),
            audio=True,
            embeddings=True,
            prefill=Prefill(),
        ),
    ),
    "lmstudio": Row(
        "",
        "",
        can(
            f"{PENALTIES} top_k repetition_penalty seed logit_bias {THINK}",
            Quirks(renamed={"repetition_penalty": "repeat_penalty"}, base64_vectors=False),
            embeddings=True,
        ),
    ),
    "ollama": Row(
        "",
        "",
        can(
            f"{PENALTIES} seed {LOGPROBS} {THINK}",
            Quirks(reasoning_back="reasoning", base64_vectors=False),
            embeddings=True,
        ),
    ),
    "mistralrs": Row(
        "",
        "",
        can(
            f"{PENALTIES} top_k min_p repetition_penalty logit_bias {LOGPROBS} n {THINK}",
            Quirks(reasoning_back="reasoning_content"),
            audio=True,
            embeddings=True,
        ),
    ),
}
