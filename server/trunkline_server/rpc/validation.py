"""What is wrong with a request, all at once, by the path of each field in the request message.

Pure: nothing is looked up and nothing changed. What breaks the contract is `invalid`; what keeps to it but this server
does not do is `unsupported`. A request of two messages with parameters and options costs about 9 us.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from trunkline.v1 import (
    completion_pb2,
    completion_service_pb2,
    embedding_service_pb2,
    generation_pb2,
    message_pb2,
    model_service_pb2,
)
from trunkline_server.errors import Violation
from trunkline_server.rpc.checks import (
    INT32_MAX,
    SECOND,
    Check,
    Table,
    above_zero,
    check_fields,
    counted,
    duration,
    entry,
    filled,
    json_object,
    known,
    labels,
    loads,
    matching,
    message_of,
    provider_options,
    request_id,
    shown,
    within,
)
from trunkline_server.rpc.conversation import check_media, check_messages
from trunkline_server.rpc.findings import Findings

MAX_TOOLS = 1024
MAX_INPUTS = 10_000
MAX_BIASES = 10_000
MAX_PAGE = 1000

_at_least_1 = within(1, INT32_MAX)
_at_least_0 = within(0, INT32_MAX)


def unserved(fix: str) -> Check:
    """Keeps to the contract, but this server does not do it."""

    def check(_: Any, path: str, findings: Findings) -> None:
        findings.refuse(path, fix)

    return check


# -- parameters -------------------------------------------------------------------------------------------------------


def _stop_sequences(value: Sequence[str], path: str, findings: Findings) -> None:
    counted(16, "stop sequences")(value, path, findings)
    for at, text in enumerate(value[:16]):
        if not text:
            findings.add(f"{path}[{at}]", "empty: a stop sequence has at least one character")


def _logit_bias(value: Any, path: str, findings: Findings) -> None:
    counted(MAX_BIASES, "tokens")(value, path, findings)
    for token, bias in islice(value.items(), MAX_BIASES):
        if not (token.isascii() and token.isdigit()):
            findings.add(entry(path, token), f"{shown(token)} is no token id: write it as a decimal number")
        if not -100 <= bias <= 100:
            findings.add(entry(path, token), f"{bias!r} is out of range: give from -100 to 100")


_PARAMS: Table = {
    "max_output_tokens": _at_least_1,
    "temperature": within(0, 2),
    "top_p": within(0, 1),
    "top_k": _at_least_0,
    "min_p": within(0, 1),
    "frequency_penalty": within(-2, 2),
    "presence_penalty": within(-2, 2),
    "repetition_penalty": above_zero,
    "stop_sequences": _stop_sequences,
    "logit_bias": _logit_bias,
    "top_logprobs": within(0, 20),
    "n": within(1, 128),
    "reasoning": message_of({"effort": known(generation_pb2.ReasoningEffort), "budget_tokens": _at_least_0}),
    "verbosity": known(generation_pb2.Verbosity),
}


# -- tools ------------------------------------------------------------------------------------------------------------

_function_name = matching(
    r"[A-Za-z0-9_.:-]{1,128}", 'name the function with 1 to 128 characters of A-Z, a-z, 0-9, "_", "-", "." and ":"'
)
_ttl = known(message_pb2.CacheTtl)


def _tools(tools: Sequence[completion_pb2.Tool], path: str, findings: Findings) -> None:
    counted(MAX_TOOLS, "tools")(tools, path, findings)
    names: dict[str, int] = {}
    for at, tool in enumerate(tools[:MAX_TOOLS]):
        where = f"{path}[{at}]"
        kind = tool.WhichOneof("kind")
        if kind == "function":
            function = tool.function
            name = function.name
            _function_name(name, f"{where}.function.name", findings)
            first = names.setdefault(name, at)
            if first != at and name:
                findings.add(f"{where}.function.name", f"{shown(name)} is the name of {path}[{first}] too: rename one")
            if function.parameters_json_schema:
                json_object(function.parameters_json_schema, f"{where}.function.parameters_json_schema", findings)
        elif kind == "provider":
            if not tool.provider.type:
                findings.add(f"{where}.provider.type", 'missing: give the provider\'s type, e.g. "code_interpreter"')
            if tool.provider.config_json:
                json_object(tool.provider.config_json, f"{where}.provider.config_json", findings)
        else:
            findings.add(where, "no kind, or one that this server does not know: set function or provider")
        if tool.HasField("cache_control") and tool.cache_control.ttl:
            _ttl(tool.cache_control.ttl, f"{where}.cache_control.ttl", findings)


#: Members of a provider's tool that name it.
_NAMES = ("name", "server_label")


def _names(tools: Sequence[completion_pb2.Tool]) -> set[str]:
    """What a tool_choice can name: functions; tools of the provider by their type, or by a name in their config."""
    found: set[str] = set()
    for tool in tools[:MAX_TOOLS]:
        if tool.WhichOneof("kind") == "function":
            found.add(tool.function.name)
        else:
            found.add(tool.provider.type)
            config, _ = loads(tool.provider.config_json or "{}")
            if isinstance(config, dict):
                found.update(config[name] for name in _NAMES if isinstance(config.get(name), str))
    return found


_mode = known(completion_pb2.ToolChoiceMode)


def _tool_choice(spec: completion_pb2.CompletionSpec, path: str, findings: Findings) -> None:
    choice = spec.tool_choice
    kind = choice.WhichOneof("choice")
    if kind is None:
        findings.add(path, "no choice: set one of mode, tool_name and allowed, or leave it out")
    elif kind == "mode":
        _mode(choice.mode, f"{path}.mode", findings)
    elif kind == "tool_name":
        _named(spec, [(f"{path}.tool_name", choice.tool_name)], findings)
    else:
        allowed = choice.allowed
        where = f"{path}.allowed.tool_names"
        if not allowed.tool_names:
            findings.add(where, "empty: name at least one tool")
        counted(MAX_TOOLS, "names")(allowed.tool_names, where, findings)
        wanted = [(f"{where}[{at}]", name) for at, name in enumerate(allowed.tool_names[:MAX_TOOLS])]
        _named(spec, wanted, findings)
        _mode(allowed.mode, f"{path}.allowed.mode", findings)
        if allowed.mode == completion_pb2.TOOL_CHOICE_MODE_NONE:
            findings.add(f"{path}.allowed.mode", "NONE allows no tool: use AUTO or REQUIRED, or leave it out")


def _named(spec: completion_pb2.CompletionSpec, wanted: Sequence[tuple[str, str]], findings: Findings) -> None:
    names = _names(spec.tools)
    for path, name in wanted:
        if name not in names:
            there = ", ".join(shown(known_name) for known_name in sorted(names)[:10]) or "none"
            findings.add(path, f"no tool {shown(name)} among spec.tools: name one of them ({there})")


def _reasoning_argument(spec: completion_pb2.CompletionSpec, path: str, findings: Findings) -> None:
    argument = spec.reasoning_argument
    _position(argument.position, f"{path}.position", findings)
    if not argument.name:
        findings.add(f"{path}.name", 'missing: name the argument, e.g. "reasoning"')
        return
    for at, tool in enumerate(spec.tools[:MAX_TOOLS]):
        schema, _ = loads(tool.function.parameters_json_schema or "{}")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(properties, dict) and argument.name in properties:
            name = shown(argument.name)
            findings.add(f"{path}.name", f"spec.tools[{at}] has an argument {name} already: take another name")


_position = known(completion_pb2.ReasoningArgumentPosition)


# -- response format --------------------------------------------------------------------------------------------------


def _response_format(value: completion_pb2.ResponseFormat, path: str, findings: Findings) -> None:
    kind = value.WhichOneof("format")
    if kind is None:
        findings.add(path, "no format: set one of text, json_object, json_schema and grammar, or leave it out")
    elif kind == "json_schema":
        schema = value.json_schema
        if schema.name:
            _schema_name(schema.name, f"{path}.json_schema.name", findings)
        if schema.json_schema:
            json_object(schema.json_schema, f"{path}.json_schema.json_schema", findings)
        else:
            findings.add(f"{path}.json_schema.json_schema", "missing: give the JSON Schema, or use json_object")
    elif kind == "grammar":
        grammar = value.grammar.WhichOneof("grammar")
        if grammar is None:
            findings.add(f"{path}.grammar", "no grammar: set one of regex, lark and ebnf")
        elif not getattr(value.grammar, grammar):
            findings.add(f"{path}.grammar.{grammar}", "empty: give the grammar, or leave response_format out")


_schema_name = matching(r"[A-Za-z0-9_-]{1,64}", 'use 1 to 64 characters of A-Z, a-z, 0-9, "_" and "-"')


# -- specs ------------------------------------------------------------------------------------------------------------

MAX_MODEL = 1024


def _model(value: str, path: str, findings: Findings) -> None:
    _model_filled(value, path, findings)
    if len(value) > MAX_MODEL:
        findings.add(path, f"{len(value):,} characters are too many for the name of a model: use at most {MAX_MODEL:,}")


_model_filled = filled('name the model, e.g. "openai/gpt-5.2", or an alias of the server\'s configuration')

_TARGET: Table = {
    "model": _model,
    "config": matching(r"configs/[a-z][a-z0-9-]{0,62}", "write configs/ID"),
    "inline_config": unserved("this server takes no configs in requests: store one, or set spec.model"),
}

_SPEC: Table = {
    **_TARGET,
    "tools": _tools,
    "response_format": _response_format,
    "params": message_of(_PARAMS),
    "labels": labels,
    "provider_options_json": provider_options,
    "tool_result_max_chars": _at_least_0,
    "max_tool_calls": _at_least_1,
    "previous_response_id": filled("give the provider's id of the response, or leave it out"),
}


def _completion_spec(spec: completion_pb2.CompletionSpec, path: str, findings: Findings) -> None:
    seen = set()
    for field, value in spec.ListFields():
        name = field.name
        seen.add(name)
        check = _SPEC.get(name)
        if check is not None:
            check(value, f"{path}.{name}", findings)
    if seen.isdisjoint(_TARGET):
        findings.add(f"{path}.model", 'missing: name the model, e.g. "openai/gpt-5.2"')
    if "messages" in seen:
        check_messages(spec.messages, f"{path}.messages", findings, earlier_kept="previous_response_id" in seen)
    else:
        findings.add(f"{path}.messages", "empty: send at least one message")
    if "tool_choice" in seen:
        _tool_choice(spec, f"{path}.tool_choice", findings)
    if "reasoning_argument" in seen:
        _reasoning_argument(spec, f"{path}.reasoning_argument", findings)
    if "audio_output" in seen:
        for name in ("voice", "format"):
            if not getattr(spec.audio_output, name):
                findings.add(f"{path}.audio_output.{name}", "missing: give the provider's word for it")


def _inputs(inputs: Sequence[embedding_service_pb2.EmbeddingInput], path: str, findings: Findings) -> None:
    counted(MAX_INPUTS, "inputs")(inputs, path, findings)
    for at, item in enumerate(inputs[:MAX_INPUTS]):
        kind = item.WhichOneof("input")
        if kind == "text":
            if not item.text:
                findings.add(f"{path}[{at}].text", "empty: an input has at least one character")
        elif kind == "token_ids":
            ids = item.token_ids.ids
            if not ids:
                findings.add(f"{path}[{at}].token_ids.ids", "empty: give at least one token id")
            elif min(ids) < 0:
                findings.add(f"{path}[{at}].token_ids.ids", f"{min(ids)} is no token id: ids are 0 or more")
        elif kind == "media":
            check_media(item.media, f"{path}[{at}].media", findings)
        else:
            findings.add(f"{path}[{at}]", "no input, or none that this server knows: set text, token_ids or media")


_EMBEDDING_SPEC: Table = {
    **_TARGET,
    "inputs": _inputs,
    "dimensions": _at_least_1,
    "task": known(embedding_service_pb2.EmbeddingTask),
    "encoding": known(embedding_service_pb2.EmbeddingEncoding),
    "provider_options_json": provider_options,
    "labels": labels,
}


def _embedding_spec(spec: embedding_service_pb2.EmbeddingSpec, path: str, findings: Findings) -> None:
    check_fields(spec, _EMBEDDING_SPEC, f"{path}.", findings)
    if spec.WhichOneof("target") is None:
        findings.add(f"{path}.model", 'missing: name the model, e.g. "openai/text-embedding-3-small"')
    if not spec.inputs:
        findings.add(f"{path}.inputs", "empty: send at least one input")


# -- options ----------------------------------------------------------------------------------------------------------

_OPTIONS: Table = {
    "timeout": duration(lambda ns: ns > 0, "more than 0"),
    "capture": known(completion_pb2.Capture),
    "on_unsupported": known(completion_pb2.OnUnsupported),
    "after_first_token": known(completion_pb2.AfterFirstToken),
}
_options = message_of(_OPTIONS)
_options_without_raw = message_of(
    {**_OPTIONS, "include_raw": unserved("this server does not return the provider's own body here: leave it out")}
)

_STREAM_OPTIONS: Table = {
    "heartbeat_interval": duration(lambda ns: ns == 0 or ns >= SECOND, "0 (none) or at least 1 s"),
    "coalesce_window": duration(lambda ns: 0 <= ns <= SECOND, "from 0 to 1 s"),
}


# -- requests ---------------------------------------------------------------------------------------------------------


def _request(table: Table) -> Callable[[Any], Findings]:
    def of(request: Any) -> Findings:
        findings = Findings()
        check_fields(request, table, "", findings)
        return findings

    return of


def _completion_request(**more: Check) -> tuple[Callable[[Any], Findings], Callable[[Any], Findings]]:
    """Without raw bodies and with them."""
    table: Table = {"spec": _completion_spec, "request_id": request_id, **more}
    return _request({**table, "options": _options_without_raw}), _request({**table, "options": _options})


_CREATE = _completion_request()
_STREAM = _completion_request(stream_options=message_of(_STREAM_OPTIONS))


def _of_the_first_call(_: Any, path: str, findings: Findings) -> None:
    findings.add(path, "a stream is resumed as it was begun: leave it out")


def _only(message: Any, table: Table) -> Check:
    """The message may have the fields of the table and no others."""
    return message_of({name: table.get(name, _of_the_first_call) for name in message.DESCRIPTOR.fields_by_name})


#: With `resume`. Only how long this call may take is its own.
_RESUME = _request(
    {
        "request_id": request_id,
        "options": _only(completion_pb2.CallOptions, {"timeout": _OPTIONS["timeout"]}),
        "stream_options": _only(completion_service_pb2.StreamOptions, {}),
    }
)
_EMBEDDINGS = _request({"spec": _embedding_spec, "request_id": request_id, "options": _options_without_raw})
_LIST_MODELS = _request({"page_size": within(0, MAX_PAGE)})


def of_create(request: completion_service_pb2.CreateCompletionRequest, allow_raw: bool = True) -> Findings:
    """`allow_raw`: the server returns providers' own bodies to those who ask."""
    return _with_spec(request, _CREATE[allow_raw](request))


def of_stream(request: completion_service_pb2.StreamCompletionRequest, allow_raw: bool = True) -> Findings:
    if request.HasField("resume"):
        findings = _RESUME(request)
        if not request.resume.completion_id:
            findings.add(
                "resume.completion_id", "missing: give CompletionStarted.completion_id of the stream that broke"
            )
        return findings.closed()
    return _with_spec(request, _STREAM[allow_raw](request))


def of_count(request: completion_service_pb2.CountTokensRequest, allow_raw: bool = True) -> Findings:
    return _with_spec(request, _CREATE[allow_raw](request))


def of_cancel(request: completion_service_pb2.CancelCompletionRequest) -> Findings:
    return _required(request.completion_id, "completion_id", "give CompletionStarted.completion_id of the completion")


def of_embeddings(request: embedding_service_pb2.CreateEmbeddingsRequest) -> Findings:
    return _with_spec(request, _EMBEDDINGS(request))


def of_params(params: generation_pb2.GenerationParams, path: str) -> Sequence[Violation]:
    """What is wrong with parameters that stand by themselves."""
    findings = Findings()
    check_fields(params, _PARAMS, f"{path}.", findings)
    return findings.closed().invalid


def of_list_models(request: model_service_pb2.ListModelsRequest) -> Findings:
    return _LIST_MODELS(request).closed()


def of_get_model(request: model_service_pb2.GetModelRequest) -> Findings:
    return _required(request.name, "name", "give the name or alias of a model")


def _with_spec(request: Any, findings: Findings) -> Findings:
    if not request.HasField("spec"):
        findings.add("spec", "missing: say what is asked")
    return findings.closed()


def _required(value: str, field: str, fix: str) -> Findings:
    findings = Findings()
    if not value:
        findings.add(field, f"missing: {fix}")
    return findings


__all__ = [
    "Findings",
    "of_cancel",
    "of_count",
    "of_create",
    "of_embeddings",
    "of_get_model",
    "of_list_models",
    "of_params",
    "of_stream",
]
