"""OpenAI and the providers that are compatible with it: a row of data each."""

from __future__ import annotations

from typing import Any

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.dialects.openai_chat.quirks import KEY, Quirks
from trunkline_server.providers.dialects.openai_responses import quirks as responses
from trunkline_server.providers.openai_models import (
    AT_ONE,
    CHATTING,
    FREE,
    NO_SAMPLING,
    ONLY_RESPONSES,
    PLAIN,
    REASONING,
    with_quirks,
)
from trunkline_server.providers.row import ModelRule, Row, Tongue


def _can(params: str, quirks: Quirks | None = None, **others: Any) -> Capabilities:
    """Capabilities of a row: its parameters beyond those that all take, its quirks, and what differs else."""
    known = frozenset((_CORE + " " + params).split())
    told = {
        "documents": False,
        "choices": "n" in known,
        "logprobs": "logprobs" in known,
        "reasoning": "reasoning" in known,
        **others,
    }
    return Capabilities(params=known, quirks={KEY: quirks or Quirks()}, **told)


_CORE = "max_output_tokens temperature top_p stop_sequences"
_PENALTIES = "frequency_penalty presence_penalty"
_SAMPLERS = "top_k min_p repetition_penalty seed logit_bias"
_LOGPROBS = "logprobs top_logprobs"
_TOOLS = "parallel_tool_calls"
_THINK = "reasoning"

_OPENAI = Quirks(
    max_tokens="max_completion_tokens",
    developer_role="developer",
    efforts={"max": "xhigh"},
    participants=True,
    user="safety_identifier",
    store=True,
    allowed_tools=True,
    refusals=True,
    speech=True,
)

_OPENAI_MODELS = (
    CHATTING,
    with_quirks(FREE, system_role="developer"),
    with_quirks(REASONING, system_role="developer"),
    PLAIN,
)
#: The first two reasoning models knew no instructions at all.
_O1_EARLY = ModelRule(
    r"o1-(mini|preview)",
    {
        "reasoning": True,
        "logprobs": False,
        "tools": False,
        "parallel_tools": False,
        "tool_choice": False,
        "json_schema": False,
    },
    without=NO_SAMPLING | {"reasoning", "verbosity"},
    quirks={"system_role": "user", "developer_role": "user", "fixed": AT_ONE},
)
_ONLY_RESPONSES = ModelRule(
    ONLY_RESPONSES,
    {
        "reasoning": True,
        "logprobs": False,
        "choices": False,
        "audio": False,
        "embeddings": False,
        "token_count": True,
        "quirks": {responses.KEY: responses.Quirks(fixed=AT_ONE)},
    },
    without=NO_SAMPLING | {"seed", "n", "stop_sequences"},
)

ROWS: dict[str, Row] = {
    "openai": Row(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        _can(
            f"{_PENALTIES} seed logit_bias {_LOGPROBS} n {_THINK} verbosity service_tier {_TOOLS}",
            _OPENAI,
            documents=True,
            audio=True,
            # Which of its models reason is told below.
            reasoning=False,
            embeddings=True,
        ),
        tongues=(Tongue(ONLY_RESPONSES, responses.KEY),),
        models=(_O1_EARLY, _ONLY_RESPONSES, *_OPENAI_MODELS),
    ),
    # Servers that one runs oneself: the address is in the configuration.
    "vllm": Row(
        "",
        "",
        _can(
            f"{_PENALTIES} {_SAMPLERS} {_LOGPROBS} n {_THINK} {_TOOLS}",
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
        ),
    ),
    "llamacpp": Row(
        "",
        "",
        _can(
            f"{_PENALTIES} {_SAMPLERS} {_LOGPROBS} n {_THINK} {_TOOLS}",
            Quirks(
                renamed={"repetition_penalty": "repeat_penalty"},
                reasoning="template",
                reasoning_back="reasoning_content",
                grammars={"ebnf": ("grammar",)},
                base64_vectors=False,
            ),
            audio=True,
            embeddings=True,
        ),
    ),
    "lmstudio": Row(
        "",
        "",
        _can(
            f"{_PENALTIES} top_k repetition_penalty seed logit_bias {_THINK}",
            Quirks(renamed={"repetition_penalty": "repeat_penalty"}, base64_vectors=False),
            embeddings=True,
        ),
    ),
    "ollama": Row(
        "",
        "",
        _can(
            f"{_PENALTIES} seed {_LOGPROBS} {_THINK}",
            Quirks(reasoning_back="reasoning", base64_vectors=False),
            embeddings=True,
        ),
    ),
    "groq": Row(
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        _can(
            f"{_PENALTIES} seed {_THINK} service_tier {_TOOLS}",
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning_back="reasoning",
                include="include_reasoning",
                participants=True,
            ),
        ),
        # Qwen thinks or does not.
        models=(ModelRule(r"qwen/", quirks={"reasoning": "default", "efforts": {}}),),
    ),
    "deepseek": Row(
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        _can(
            f"{_PENALTIES} seed {_LOGPROBS} {_THINK}",
            Quirks(
                reasoning="thinking",
                switch_effort=True,
                efforts={"minimal": "low"},
                reasoning_back="reasoning_content",
                participants=True,
                user="",
            ),
            json_schema=False,
            images=False,
        ),
    ),
    "xai": Row(
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        _can(
            f"{_PENALTIES} seed {_LOGPROBS} n {_THINK} {_TOOLS}",
            Quirks(max_tokens="max_completion_tokens", reasoning_back="reasoning_content", participants=True),
        ),
    ),
    "together": Row(
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        _can(
            f"{_PENALTIES} {_SAMPLERS} {_LOGPROBS} n {_THINK}",
            Quirks(reasoning_back="reasoning", logprobs_count=True, video=True, user=""),
            embeddings=True,
        ),
    ),
    "openrouter": Row(
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        _can(
            f"{_PENALTIES} {_SAMPLERS} {_LOGPROBS} {_THINK} verbosity service_tier {_TOOLS}",
            Quirks(
                developer_role="developer",
                reasoning="openrouter",
                efforts={"max": "xhigh"},
                reasoning_back="reasoning_details",
                document_urls=True,
                video=True,
                cache_control=True,
                participants=True,
                refusals=True,
                speech=True,
            ),
            documents=True,
            audio=True,
            prompt_cache=True,
            embeddings=True,
        ),
    ),
    "fireworks": Row(
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        _can(
            f"{_PENALTIES} {_SAMPLERS} {_LOGPROBS} n {_THINK} service_tier {_TOOLS}",
            Quirks(reasoning_back="reasoning_content", grammars={"ebnf": ("response_format", "grammar")}),
            embeddings=True,
        ),
    ),
    "cerebras": Row(
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        _can(
            f"seed logit_bias {_LOGPROBS} {_THINK} service_tier {_TOOLS}",
            Quirks(max_tokens="max_completion_tokens", reasoning_back="reasoning"),
            images=False,
        ),
    ),
    "mistral": Row(
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        _can(
            f"{_PENALTIES} seed n {_THINK} {_TOOLS}",
            Quirks(
                renamed={"seed": "random_seed"},
                reasoning_back="thinking",
                document="document_url",
                document_urls=True,
                user="",
                stream_usage=False,
                base64_vectors=False,
            ),
            documents=True,
            audio=True,
            embeddings=True,
        ),
    ),
    "zai": Row(
        "https://api.z.ai/api/paas/v4",
        "ZAI_API_KEY",
        _can(
            f"seed {_THINK}",
            Quirks(reasoning="thinking", reasoning_back="reasoning_content", video=True, user="user_id"),
            tool_choice=False,
            json_schema=False,
            embeddings=True,
        ),
        models=(
            ModelRule(
                r"glm-(5\.[2-9]|[6-9])",
                quirks={"switch_effort": True, "efforts": {"minimal": "low", "medium": "high", "xhigh": "max"}},
            ),
        ),
    ),
    "moonshot": Row(
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        _can(
            f"{_PENALTIES} n {_THINK}",
            Quirks(reasoning="thinking", reasoning_back="reasoning_content", video=True, participants=True),
        ),
    ),
    "perplexity": Row(
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        _can(
            f"{_PENALTIES} top_k {_THINK}",
            # Left alone it sends int8, the finest that it has.
            Quirks(
                document="file_url",
                document_urls=True,
                user="",
                stream_usage=False,
                base64_vectors=False,
                embeddings_path="/v1/embeddings",
            ),
            documents=True,
            tools=False,
            parallel_tools=False,
            tool_choice=False,
            embeddings=True,
        ),
    ),
    "nvidia": Row(
        "https://integrate.api.nvidia.com/v1",
        "NVIDIA_API_KEY",
        _can(
            f"{_PENALTIES} seed {_LOGPROBS} {_THINK} {_TOOLS}",
            Quirks(reasoning="template", user=""),
            embeddings=True,
        ),
    ),
    "huggingface": Row(
        "https://router.huggingface.co/v1",
        "HF_TOKEN",
        _can(
            f"{_PENALTIES} seed logit_bias {_LOGPROBS} n {_THINK}",
            Quirks(reasoning_back="reasoning_content", user=""),
        ),
    ),
    "sambanova": Row(
        "https://api.sambanova.ai/v1",
        "SAMBANOVA_API_KEY",
        _can(
            f"top_k {_THINK} {_TOOLS}",
            Quirks(reasoning_back="reasoning", user=""),
            embeddings=True,
        ),
    ),
    "alibaba": Row(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        _can(
            f"presence_penalty repetition_penalty top_k seed n {_LOGPROBS} {_THINK} {_TOOLS}",
            Quirks(reasoning="alibaba", reasoning_back="reasoning_content", video=True, user=""),
            audio=True,
            embeddings=True,
        ),
    ),
}
