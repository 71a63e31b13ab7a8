"""OpenAI and the providers that are compatible with it: a row of data each."""

from __future__ import annotations

import dataclasses

from trunkline.v1 import embedding_service_pb2
from trunkline_server.providers import azure
from trunkline_server.providers.azure import AzureRow
from trunkline_server.providers.base import Prefill
from trunkline_server.providers.chat import LOGPROBS, PENALTIES, SAMPLERS, THINK, TOOLS, can
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
from trunkline_server.providers.row import ModelRule, Row, Setting, Tongue
from trunkline_server.providers.servers import SERVERS

#: Kimi and Qwen go on from a message that is marked so.
_PARTIAL = Prefill(message={"partial": True})

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
#: Azure counts no tokens.
_AZURES_RESPONSES = {**_ONLY_RESPONSES.capabilities, "token_count": False}

_OPENAIS = can(
    f"{PENALTIES} seed logit_bias {LOGPROBS} n {THINK} verbosity service_tier {TOOLS}",
    _OPENAI,
    documents=True,
    audio=True,
    # Which of its models reason is told by the rules.
    reasoning=False,
    embeddings=True,
)
#: How those who search with vectors call what they embed.
_QUERY, _DOCUMENT = embedding_service_pb2.EMBEDDING_TASK_QUERY, embedding_service_pb2.EMBEDDING_TASK_DOCUMENT

ROWS: dict[str, Row] = {
    "openai": Row(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        _OPENAIS,
        tongues=(Tongue(ONLY_RESPONSES, responses.KEY),),
        models=(_O1_EARLY, _ONLY_RESPONSES, *_OPENAI_MODELS),
    ),
    # Deployments have names of their own: whether one reasons, only the name can tell.
    "azure": AzureRow(
        "",
        "AZURE_OPENAI_API_KEY",
        _OPENAIS,
        auth="api-key",
        tongues=(Tongue(ONLY_RESPONSES, responses.KEY),),
        settings=azure.SETTINGS,
        models=(_O1_EARLY, dataclasses.replace(_ONLY_RESPONSES, capabilities=_AZURES_RESPONSES), *_OPENAI_MODELS),
    ),
    # Copilot's and GitHub's own models; a token of GitHub's is in too many environments to be taken unasked.
    "github": Row(
        "https://api.githubcopilot.com",
        "",
        dataclasses.replace(
            _OPENAIS,
            params=(_OPENAIS.params or frozenset()) - {"service_tier"},
            documents=False,
            audio=False,
            quirks={KEY: dataclasses.replace(_OPENAI, user="", store=False, speech=False)},
        ),
        models=_OPENAI_MODELS,
    ),
    **SERVERS,
    "groq": Row(
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        can(
            f"{PENALTIES} seed {THINK} service_tier {TOOLS}",
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning_back="reasoning",
                include="include_reasoning",
                participants=True,
            ),
            prefill=Prefill(),
        ),
        # Qwen thinks or does not.
        models=(ModelRule(r"qwen/", quirks={"reasoning": "default", "efforts": {}}),),
    ),
    "deepseek": Row(
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        can(
            f"{PENALTIES} seed {LOGPROBS} {THINK}",
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
        can(
            f"{PENALTIES} seed {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(max_tokens="max_completion_tokens", reasoning_back="reasoning_content", participants=True),
        ),
    ),
    "together": Row(
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK}",
            Quirks(reasoning_back="reasoning", logprobs_count=True, video=True, user=""),
            embeddings=True,
        ),
    ),
    "openrouter": Row(
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} {THINK} verbosity service_tier {TOOLS}",
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
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} service_tier {TOOLS}",
            Quirks(reasoning_back="reasoning_content", grammars={"ebnf": ("response_format", "grammar")}),
            embeddings=True,
        ),
    ),
    "cerebras": Row(
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        can(
            f"seed logit_bias {LOGPROBS} {THINK} service_tier {TOOLS}",
            Quirks(max_tokens="max_completion_tokens", reasoning_back="reasoning"),
            images=False,
        ),
    ),
    "mistral": Row(
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        can(
            f"{PENALTIES} seed n {THINK} {TOOLS}",
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
            prefill=Prefill(message={"prefix": True}, echoes=True),
        ),
    ),
    "zai": Row(
        "https://api.z.ai/api/paas/v4",
        "ZAI_API_KEY",
        can(
            f"seed {THINK}",
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
        can(
            f"{PENALTIES} n {THINK}",
            Quirks(reasoning="thinking", reasoning_back="reasoning_content", video=True, participants=True),
            prefill=_PARTIAL,
        ),
    ),
    "perplexity": Row(
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        can(
            f"{PENALTIES} top_k {THINK}",
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
        can(
            f"{PENALTIES} seed {LOGPROBS} {THINK} {TOOLS}",
            Quirks(reasoning="template", user=""),
            embeddings=True,
        ),
    ),
    "huggingface": Row(
        "https://router.huggingface.co/v1",
        "HF_TOKEN",
        can(
            f"{PENALTIES} seed logit_bias {LOGPROBS} n {THINK}",
            Quirks(reasoning_back="reasoning_content", user=""),
        ),
    ),
    "sambanova": Row(
        "https://api.sambanova.ai/v1",
        "SAMBANOVA_API_KEY",
        can(
            f"top_k {THINK} {TOOLS}",
            Quirks(reasoning_back="reasoning", user=""),
            embeddings=True,
        ),
    ),
    "alibaba": Row(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        can(
            f"presence_penalty repetition_penalty top_k seed n {LOGPROBS} {THINK} {TOOLS}",
            Quirks(reasoning="alibaba", reasoning_back="reasoning_content", video=True, user=""),
            audio=True,
            embeddings=True,
            prefill=_PARTIAL,
        ),
    ),
    "minimax": Row(
        "https://api.minimax.io/v1",
        "MINIMAX_API_KEY",
        can(
            THINK,
            # Left alone it writes its thoughts into the text, between tags.
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning_back="reasoning_details",
                constant={"reasoning_split": True},
                user="",
            ),
            images=False,
            tool_choice=False,
            json_schema=False,
        ),
    ),
    "baseten": Row(
        "https://inference.baseten.co/v1",
        "BASETEN_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(reasoning_back="reasoning_content", user=""),
        ),
    ),
    "cloudflare": Row(
        "https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
        "",
        can(
            f"{PENALTIES} top_k repetition_penalty seed",
            Quirks(user="", base64_vectors=False),
            embeddings=True,
        ),
        settings={"account": Setting("the id of a Cloudflare account", ("CLOUDFLARE_ACCOUNT_ID",))},
    ),
    "crusoe": Row(
        "https://api.inference.crusoecloud.com/v1",
        "CRUSOE_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(reasoning="template", reasoning_back="reasoning", user=""),
        ),
    ),
    "databricks": Row(
        "{host}/serving-endpoints",
        "",
        can(
            f"top_k n {LOGPROBS} {THINK}",
            Quirks(user="", base64_vectors=False),
            embeddings=True,
        ),
        settings={
            "host": Setting("the address of a workspace, e.g. https://NAME.databricks.net", ("DATABRICKS_HOST",))
        },
    ),
    "doubleword": Row(
        "https://api.doubleword.ai/v1",
        "DOUBLEWORD_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(reasoning_back="reasoning_content", video=True, participants=True),
            audio=True,
            embeddings=True,
        ),
    ),
    "gemini-openai": Row(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        can(f"{PENALTIES} n {THINK}", Quirks(thought_signatures=True, user=""), audio=True, embeddings=True),
        beside="gemini",
    ),
    "heroku": Row(
        "https://us.inference.heroku.com/v1",
        "INFERENCE_KEY",
        can(
            THINK, Quirks(user="", input_types={_QUERY: "search_query", _DOCUMENT: "search_document"}), embeddings=True
        ),
    ),
    "snowflake": Row(
        "https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
        "",
        can(
            f"{PENALTIES} {LOGPROBS} {THINK}",
            Quirks(
                max_tokens="max_completion_tokens",
                reasoning="openrouter",
                reasoning_back="reasoning_details",
                cache_control=True,
            ),
            prompt_cache=True,
        ),
        settings={"account": Setting("the identifier of a Snowflake account", ("SNOWFLAKE_ACCOUNT",))},
    ),
    "venice": Row(
        "https://api.venice.ai/api/v1",
        "VENICE_API_KEY",
        can(
            f"{PENALTIES} {SAMPLERS} {LOGPROBS} n {THINK} {TOOLS}",
            Quirks(
                max_tokens="max_completion_tokens", reasoning_back="reasoning_content", video=True, participants=True
            ),
            audio=True,
            embeddings=True,
        ),
    ),
    # It embeds, and nothing else.
    "voyage": Row(
        "https://api.voyageai.com/v1",
        "VOYAGE_API_KEY",
        can(
            "",
            Quirks(user="", dimensions="output_dimension", input_types={_QUERY: "query", _DOCUMENT: "document"}),
            tools=False,
            parallel_tools=False,
            tool_choice=False,
            json_schema=False,
            images=False,
            embeddings=True,
            embedding_batch=1000,
        ),
    ),
}
