"""When two request bodies ask the same: the equivalences that a comparison allows, as a table, each with its reason.

Bodies are compared after every equivalence of their wire has been applied to both. What is left must be equal, member
by member; numbers are equal by value.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fidelity import chat_bodies, cohere_bodies, converse_bodies, gemini_bodies, ollama_bodies, responses_bodies


@dataclass(frozen=True, slots=True)
class Equivalence:
    """One way in which two bodies may differ and ask the same."""

    name: str
    reason: str
    #: Brings a body to the common form, in place.
    apply: Callable[[dict[str, Any]], None]


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _drop_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_drop_nulls(inner) for inner in value]
    return value


def _nulls(body: dict[str, Any]) -> None:
    # Schemas are the caller's: null has a meaning there.
    schemas = ("tools", "response_format", "output_config", "output_format", "text")
    kept = {name: body[name] for name in schemas if body.get(name) is not None}
    clean = _drop_nulls(body)
    body.clear()
    body.update(clean)
    body.update(kept)


def _not_streamed(body: dict[str, Any]) -> None:
    body["stream"] = bool(body.get("stream"))
    body.pop("stream_options", None)


def _empty_lists(body: dict[str, Any]) -> None:
    for name in ("tools", "stop", "stop_sequences", "functions"):
        if body.get(name) in ([], ""):
            del body[name]


def _one_text(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = [{"type": "text", "text": content}] if content else []
        elif content is None:
            message["content"] = []
        for block in message["content"] if isinstance(message["content"], list) else ():
            if isinstance(block, dict) and isinstance(block.get("content"), str):
                block["content"] = [{"type": "text", "text": block["content"]}]


def _system_text(body: dict[str, Any]) -> None:
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}] if body["system"] else []
    if body.get("system") == []:
        del body["system"]


def _stop_list(body: dict[str, Any]) -> None:
    if isinstance(body.get("stop"), str):
        body["stop"] = [body["stop"]]


def _most_tokens(body: dict[str, Any]) -> None:
    if "max_tokens" in body:
        body.setdefault("max_completion_tokens", body.pop("max_tokens"))


def _functions(body: dict[str, Any]) -> None:
    functions = body.pop("functions", None)
    if functions:
        body["tools"] = [{"type": "function", "function": function} for function in functions]
    choice = body.pop("function_call", None)
    if choice is not None:
        body["tool_choice"] = choice if isinstance(choice, str) else {"type": "function", "function": choice}
    for message in body.get("messages") or ():
        call = message.pop("function_call", None)
        if call:
            message["tool_calls"] = [{"id": call["name"], "type": "function", "function": call}]
        if message.get("role") == "function":
            message["role"] = "tool"
            message["tool_call_id"] = message.pop("name", "")


def _argument_text(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                with contextlib.suppress(ValueError):
                    function["arguments"] = json.loads(arguments) if arguments.strip() else {}
            call.setdefault("type", "function")
            call.pop("index", None)
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)


def _instructions(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        if message.get("role") == "developer":
            message["role"] = "system"


def _result_names(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        if message.get("role") == "tool":
            message.pop("name", None)


def _end_user(body: dict[str, Any]) -> None:
    if "safety_identifier" in body:
        body.setdefault("user", body.pop("safety_identifier"))


def _default_choice(body: dict[str, Any]) -> None:
    if body.get("tool_choice") in ("auto", {"type": "auto"}):
        del body["tool_choice"]
    if not body.get("tools"):
        body.pop("tool_choice", None)
        body.pop("parallel_tool_calls", None)


def _text_format(body: dict[str, Any]) -> None:
    asked = body.get("response_format")
    if asked == {"type": "text"}:
        del body["response_format"]
    elif isinstance(asked, dict) and asked.get("type") == "json_schema":
        asked["json_schema"] = {n: v for n, v in asked["json_schema"].items() if v not in (None, "")}


def _tool_shape(body: dict[str, Any]) -> None:
    for tool in body.get("tools") or ():
        if not isinstance(tool, dict):
            continue
        function = tool.get("function") or tool
        if function.get("description") in (None, ""):
            function.pop("description", None)
        for name in ("strict", "cache_control", "parameters"):
            if name in function and function[name] is None:
                del function[name]
        if tool.get("type") == "custom" and "input_schema" in tool:
            del tool["type"]


def _image_detail(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        for part in message.get("content") or ():
            image = part.get("image_url") if isinstance(part, dict) else None
            if isinstance(image, str):
                part["image_url"] = {"url": image}
            elif isinstance(image, dict) and image.get("detail") == "auto":
                del image["detail"]


def _short_cache(body: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            mark = value.get("cache_control")
            if isinstance(mark, dict) and mark.get("ttl") == "5m":
                del mark["ttl"]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(body)


def _one_turn(body: dict[str, Any]) -> None:
    turns: list[dict[str, Any]] = []
    for message in body.get("messages") or ():
        if turns and turns[-1].get("role") == message.get("role"):
            turns[-1] = {**turns[-1], "content": [*turns[-1]["content"], *message["content"]]}
        else:
            turns.append(message)
    for turn in turns:
        if turn.get("role") == "user":
            turn["content"] = sorted(
                turn["content"], key=lambda b: 0 if isinstance(b, dict) and b.get("type") == "tool_result" else 1
            )
    body["messages"] = turns


def _empty_results(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        for block in message.get("content") or ():
            if isinstance(block, dict) and block.get("type") == "tool_result":
                if not block.get("content") or block["content"] == [{"type": "text", "text": ""}]:
                    block.pop("content", None)
                if block.get("is_error") is False:
                    del block["is_error"]
            if isinstance(block, dict) and block.get("type") == "text" and not block.get("citations", True):
                del block["citations"]


def _schema_place(body: dict[str, Any]) -> None:
    asked = body.pop("output_format", None)
    if asked:
        body.setdefault("output_config", {})["format"] = asked


def _usual_effort(body: dict[str, Any]) -> None:
    config = body.get("output_config")
    if isinstance(config, dict) and config.get("effort") == "high":
        del config["effort"]
    if config == {}:
        del body["output_config"]


def _not_strict(body: dict[str, Any]) -> None:
    for tool in body.get("tools") or ():
        if isinstance(tool, dict) and tool.get("strict") is False:
            del tool["strict"]


def _direct_caller(body: dict[str, Any]) -> None:
    for message in body.get("messages") or ():
        for block in message.get("content") or ():
            if isinstance(block, dict) and block.get("caller") == {"type": "direct"}:
                del block["caller"]


_JSON = (
    Equivalence("absent is null", "a member that is null is not there", _nulls),
    Equivalence("not streamed", "stream false is absent; the gateway asks every stream for its usage", _not_streamed),
    Equivalence("nothing in a list", "an empty list asks for nothing", _empty_lists),
)
_ONE_TEXT = Equivalence("one text", "a string is a list of one text part", _one_text)

OPENAI_CHAT = (
    *_JSON,
    _ONE_TEXT,
    Equivalence("one stop", "a stop sequence is a list of one", _stop_list),
    Equivalence("most tokens", "max_tokens is the old name of max_completion_tokens", _most_tokens),
    Equivalence("functions", "functions are the old form of tools", _functions),
    Equivalence(
        "argument text", "arguments are JSON text, whatever its spaces; type is always function", _argument_text
    ),
    Equivalence("instructions", "developer and system messages are the same to the model", _instructions),
    Equivalence("result names", "the name of a tool result is in the call that it answers", _result_names),
    Equivalence("end user", "user is the old name of safety_identifier", _end_user),
    Equivalence("default choice", "auto is the default; without tools there is nothing to choose", _default_choice),
    Equivalence("text format", "text is the default format; an empty member of a format says nothing", _text_format),
    Equivalence("tool shape", "an empty description says nothing", _tool_shape),
    Equivalence("image detail", "auto is the default detail; an address alone is an image", _image_detail),
    Equivalence("echoes", "no annotations, no thought and no call's id say nothing when sent back", chat_bodies.echoes),
    Equivalence("one choice", "one choice is the default", chat_bodies.one_choice),
    Equivalence("function type", "what holds a function is one", chat_bodies.function_type),
    Equivalence("unnamed schema", "a schema without a name is called response", chat_bodies.unnamed_schema),
    Equivalence("parallel calls", "several calls at once are the default", chat_bodies.parallel_calls),
    Equivalence("short cache", "five minutes are the default", _short_cache),
)

ANTHROPIC_MESSAGES = (
    *_JSON,
    _ONE_TEXT,
    Equivalence("system text", "a system string is a list of one text block", _system_text),
    Equivalence("default choice", "auto is the default; without tools there is nothing to choose", _default_choice),
    Equivalence("tool shape", "custom is the default type; an empty description says nothing", _tool_shape),
    Equivalence("short cache", "five minutes are the default", _short_cache),
    Equivalence("one turn", "what one says in a row is one turn; tool results stand first in it", _one_turn),
    Equivalence(
        "empty results", "a result without content, is_error false and no citations say nothing", _empty_results
    ),
    Equivalence("schema place", "output_format is the beta name of output_config.format", _schema_place),
    Equivalence("usual effort", "high is the default effort", _usual_effort),
    Equivalence("not strict", "a tool is not strict by default", _not_strict),
    Equivalence("direct caller", "a call is the model's own if nothing else is said", _direct_caller),
)

GEMINI = (
    Equivalence("either case", "names may be written in camel case or with underscores", gemini_bodies.either_case),
    Equivalence("nothing said", "a member that is null, {} or [] is not there", gemini_bodies.nothing_said),
    Equivalence("list of parts", "a text or a part is a list of one part", gemini_bodies.list_of_parts),
    Equivalence("roles", "who is no model is the user; instructions need no role", gemini_bodies.roles),
    Equivalence("no thought", "thought false is the default", gemini_bodies.no_thought),
    Equivalence("no arguments", "no arguments are empty ones", gemini_bodies.no_arguments),
    Equivalence("one turn", "what one says in a row is one turn", gemini_bodies.one_turn),
    Equivalence("blank texts", "an empty text beside another part says nothing", gemini_bodies.blank_texts),
    Equivalence("same bytes", "base64 has two alphabets, and may be padded", gemini_bodies.same_bytes),
    Equivalence("one list", "functions in several entries are functions in one", gemini_bodies.one_list_of_functions),
    Equivalence("schema names", "a schema has an old name and a new one", gemini_bodies.schema_names),
    Equivalence("choice words", "AUTO is the default, as is no choice without tools", gemini_bodies.choice_words),
    Equivalence("defaults", "text is the default, as type and as modality", gemini_bodies.defaults),
)

OPENAI_RESPONSES = (
    *_JSON,
    Equivalence("one input", "a string is a list of one message; nothing said is no message", responses_bodies.items),
    Equivalence("stored prompt", "a stored prompt names its model, and may be all", responses_bodies.stored_prompt),
    Equivalence("instructions", "instructions are a system message, as are a developer's", responses_bodies.leading),
    Equivalence("texts", "a text is a text whoever says it; no annotations say nothing", responses_bodies.texts),
    Equivalence("status", "items are complete if nothing else is said", responses_bodies.statuses),
    Equivalence("argument text", "arguments are JSON text, whatever its spaces", responses_bodies.call_text),
    Equivalence("sealed", "thoughts are asked for sealed where they will be needed", responses_bodies.included),
    Equivalence("one summary", "a summary has the length that the provider thinks best", responses_bodies.summary),
    Equivalence("end user", "user is the old name of safety_identifier", _end_user),
    Equivalence("default choice", "auto is the default; without tools there is nothing to choose", _default_choice),
    Equivalence(
        "text format", "text is the default format; an empty member says nothing", responses_bodies.answer_format
    ),
    Equivalence("tool shape", "an empty description says nothing", _tool_shape),
    Equivalence("image detail", "auto is the default detail", responses_bodies.item_detail),
)

COHERE_CHAT = (
    *_JSON,
    _ONE_TEXT,
    Equivalence("nothing said", "an empty text or an empty list says nothing", cohere_bodies.nothing_said),
    Equivalence("plain documents", "a document that is a text is an object with one", cohere_bodies.plain_documents),
    Equivalence("given ids", "ids of documents are the gateway's: citations name an index", cohere_bodies.given_ids),
    Equivalence("schema name", "schema is the old name of json_schema; text is the default", cohere_bodies.schema_name),
    Equivalence("default choice", "without tools there is nothing to choose", _default_choice),
    Equivalence("tool shape", "an empty description says nothing", _tool_shape),
    Equivalence("image detail", "auto is the default detail", _image_detail),
)

OLLAMA_CHAT = (
    Equivalence("not streamed", "whether the answer streams is the call's, not the body's, to say", _not_streamed),
    Equivalence("nothing said", "a member that is null or empty is not there", ollama_bodies.nothing_said),
    Equivalence("functions", "all calls are of functions; no arguments are empty ones", ollama_bodies.functions),
    Equivalence("result names", "a result is of the call that it answers", ollama_bodies.result_names),
    Equivalence("one stop", "a stop sequence is a list of one", ollama_bodies.one_stop),
    Equivalence("tool shape", "an empty description says nothing", _tool_shape),
)

BEDROCK_CONVERSE = (
    Equivalence("nothing said", "a member that is null, {} or [] is not there", converse_bodies.nothing_said),
    Equivalence(
        "one turn", "what one says in a row is one turn; results stand first in it, blanks say nothing",
        converse_bodies.one_turn,
    ),
    Equivalence("plain results", "a result is a success if nothing else is said", converse_bodies.plain_results),
    Equivalence("JSON results", "a result that is JSON may be said as its text", converse_bodies.json_results),
    Equivalence("text documents", "a text is the bytes of it", converse_bodies.text_documents),
    Equivalence("default choice", "auto is the default choice", converse_bodies.default_choice),
    Equivalence("tool shape", "no description says nothing; no tool is strict by default", converse_bodies.tool_shape),
    Equivalence("short cache", "five minutes are the default", converse_bodies.short_cache),
    Equivalence("thinking name", "reasoning_config is Claude's old name of thinking", converse_bodies.thinking_name),
    Equivalence("usual effort", "high is the default effort", converse_bodies.usual_effort),
    Equivalence("most tokens", "max_new_tokens is Nova's old name of maxTokens", converse_bodies.most_tokens),
    Equivalence("schema version", "there is one version of the body of Nova models", converse_bodies.schema_version),
)  # fmt: skip

#: By dialect.
TABLE: dict[str, tuple[Equivalence, ...]] = {
    "anthropic_messages": ANTHROPIC_MESSAGES,
    "bedrock_converse": BEDROCK_CONVERSE,
    "bedrock_invoke_anthropic": ANTHROPIC_MESSAGES,
    "bedrock_invoke_chat": OPENAI_CHAT,
    "bedrock_invoke_nova": BEDROCK_CONVERSE,
    "cohere_chat": COHERE_CHAT,
    "gemini": GEMINI,
    "ollama_chat": OLLAMA_CHAT,
    "openai_chat": OPENAI_CHAT,
    "openai_responses": OPENAI_RESPONSES,
    "vertex_anthropic": ANTHROPIC_MESSAGES,
    "vertex_gemini": GEMINI,
}

#: By kind of provider, beside its dialect's.
KINDS: dict[str, tuple[Equivalence, ...]] = {
    "bedrock-invoke": (
        Equivalence("in the path", "the path says the model, and whether to stream", converse_bodies.in_the_path),
    ),
    "openai": (
        Equivalence("default sampling", "temperature and top_p are 1 by default", chat_bodies.default_sampling),
    ),
    "openrouter": (
        Equivalence(
            "reasoning names",
            "reasoning_effort and include_reasoning are other names of members of reasoning, whose effort is medium "
            "where it is only enabled",
            chat_bodies.openrouter_reasoning,
        ),
        Equivalence(
            "reasoning details",
            "their order is their index, their model is their format",
            chat_bodies.openrouter_details,
        ),
        Equivalence("usage", "usage is reported always; asking for it has no effect", chat_bodies.openrouter_usage),
    ),
    "mistral": (
        Equivalence("any tool", "any and required are the same", chat_bodies.mistral_any),
        Equivalence("document names", "the name of a document is for its caller", chat_bodies.mistral_documents),
        Equivalence("sounds", "a sound says its format itself", chat_bodies.mistral_sounds),
        Equivalence("closed thoughts", "thoughts sent back are closed ones", chat_bodies.mistral_thoughts),
    ),
    "xai": (Equivalence("Claude's choice", "a tool is also chosen in Anthropic's words", chat_bodies.claude_choice),),
    "deepseek": (Equivalence("switched on", "effort asks for thought", chat_bodies.switched_on),),
    "zai": (Equivalence("switched on", "effort asks for thought", chat_bodies.switched_on),),
    "groq": (
        Equivalence("reasoning format", "parsed thoughts are included, hidden ones are not", chat_bodies.groq_thoughts),
    ),
    "ollama": (Equivalence("same thought", "a thought under both its names is one thought", chat_bodies.same_thought),),
}

_ANTHROPIC_OPTIONS = frozenset(
    {
        "cache_control",
        "container",
        "context_management",
        "inference_geo",
        "mcp_servers",
        "output_config.task_budget",
        "speed",
    }
)
_GEMINI_OPTIONS = frozenset(
    {
        "cachedContent", "generationConfig.mediaResolution", "generationConfig.responseModalities",
        "generationConfig.speechConfig", "generationConfig.imageConfig", "labels", "modelArmorConfig", "safetySettings",
        "toolConfig.includeServerSideToolInvocations", "toolConfig.retrievalConfig",
    }
)  # fmt: skip

#: Members that a recorded request may hand through provider_options_json, because the contract has no words for them.
OPTIONS: dict[str, frozenset[str]] = {
    "openai_chat": frozenset(
        {
            "metadata", "modalities", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
            "prompt_cache_retention", "web_search_options",
        }
    ),
    "anthropic_messages": _ANTHROPIC_OPTIONS,
    "bedrock_converse": frozenset(
        {
            "additionalModelResponseFieldPaths", "guardrailConfig", "performanceConfig", "promptVariables",
            "requestMetadata",
        }
    ),
    "bedrock_invoke_anthropic": _ANTHROPIC_OPTIONS | {"anthropic_beta"},
    "bedrock_invoke_chat": frozenset(),
    "bedrock_invoke_nova": frozenset(),
    "cohere_chat": frozenset({"citation_options", "priority", "raw_prompting", "safety_mode"}),
    "gemini": _GEMINI_OPTIONS,
    "ollama_chat": frozenset(
        {
            "keep_alive", "options.mirostat", "options.mirostat_eta", "options.mirostat_tau", "options.num_batch",
            "options.num_ctx", "options.num_gpu", "options.num_keep", "options.num_thread", "options.repeat_last_n",
            "options.tfs_z", "options.typical_p", "truncate",
        }
    ),
    "openai_responses": frozenset(
        {
            "background", "context_management", "conversation", "metadata", "moderation", "prompt", "prompt_cache_key",
            "prompt_cache_options", "prompt_cache_retention", "reasoning.context", "reasoning.mode", "truncation",
        }
    ),
    "vertex_anthropic": _ANTHROPIC_OPTIONS,
    "vertex_gemini": _GEMINI_OPTIONS,
}  # fmt: skip


#: The same by kind of provider, beside its dialect's.
KIND_OPTIONS: dict[str, frozenset[str]] = {
    "cerebras": frozenset({"clear_thinking"}),
    "llamacpp": frozenset({"cache_prompt"}),
    "mistral": frozenset({"safe_prompt"}),
    "openrouter": frozenset({"models", "plugins", "provider", "route", "transforms"}),
    "perplexity": frozenset({"return_images", "return_related_questions", "search_context_size"}),
    "venice": frozenset({"venice_parameters"}),
    "zai": frozenset({"thinking.clear_thinking"}),
}


def options_of(recorded: dict[str, Any], dialect: str, kind: str = "") -> dict[str, Any]:
    """What of the body may ride in provider_options_json."""
    body = copy.deepcopy(recorded)
    for equivalence in TABLE[dialect] if TABLE[dialect] is GEMINI else ():
        equivalence.apply(body)
    found: dict[str, Any] = {}
    for name in OPTIONS[dialect] | KIND_OPTIONS.get(kind, frozenset()):
        outer, _, inner = name.partition(".")
        value = body.get(outer)
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
            if value is not None:
                found.setdefault(outer, {})[inner] = value
        elif value is not None:
            found[outer] = value
    return found


def names_of(options: dict[str, Any], dialect: str, kind: str = "") -> list[str]:
    """The options as they stand on the list."""
    allowed = OPTIONS[dialect] | KIND_OPTIONS.get(kind, frozenset())
    whole = {name for name in options if name in allowed}
    inner = {f"{name}.{part}" for name in options.keys() - whole for part in options[name]}
    return sorted(whole | inner)


def same(one: Any, other: Any) -> bool:
    """Equal, numbers by value."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(recorded: dict[str, Any], encoded: dict[str, Any], dialect: str, kind: str = "") -> list[str]:
    """Names of the members in which the two still differ; both are brought to the common form in place."""
    for equivalence in (*TABLE[dialect], *KINDS.get(kind, ())):
        equivalence.apply(recorded)
        equivalence.apply(encoded)
    return sorted(
        name
        for name in recorded.keys() | encoded.keys()
        if name not in recorded or name not in encoded or not same(recorded[name], encoded[name])
    )
