"""For every row of the equivalences two bodies that ask the same by it, and one that asks something else."""

from __future__ import annotations

from typing import Any

from tests.fidelity.converse_cases import CONVERSE, INVOKE

Body = dict[str, Any]
#: Two that ask the same, and one that differs from both.
Case = tuple[Body, Body, Body]

_HI: Body = {"role": "user", "content": "Hi"}
_TOOL: Body = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_IMAGE = "https://example.org/a.png"


def _asked(*messages: Body, **members: Any) -> Body:
    return {"model": "m", "messages": list(messages) or [_HI], **members}


def _calling(arguments: str, **members: Any) -> Body:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}, **members}
    return _asked(_HI, {"role": "assistant", "content": "", "tool_calls": [call]})


def _schema(**members: Any) -> Body:
    return _asked(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}, **members}})


def _function(**members: Any) -> Body:
    return _asked(tools=[{"type": "function", "function": {"name": "f", "parameters": {}, **members}}])


def _parts(*parts: Body, role: str = "user") -> Body:
    return _asked({"role": role, "content": list(parts)})


def _answered(**members: Any) -> Body:
    return _asked(_HI, {"role": "assistant", "content": "Ho", **members})


def _pictured(image: Any) -> Body:
    return _parts({"type": "image_url", "image_url": image})


def _marked(**mark: Any) -> Body:
    return _parts({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", **mark}})


_JSON: dict[str, Case] = {
    "absent is null": (_asked(temperature=None), _asked(), _asked(temperature=0)),
    "not streamed": (_asked(stream=False), _asked(), _asked(stream=True)),
    "nothing in a list": (_asked(stop=[]), _asked(), _asked(stop=["x"])),
    "one text": (_parts({"type": "text", "text": "Hi"}), _asked(), _parts({"type": "text", "text": "Ho"})),
}

_CHAT: dict[str, Case] = {
    **_JSON,
    "one stop": (_asked(stop="x"), _asked(stop=["x"]), _asked(stop=["y"])),
    "most tokens": (_asked(max_tokens=5), _asked(max_completion_tokens=5), _asked(max_completion_tokens=6)),
    "functions": (
        _asked(functions=[_TOOL["function"]], function_call={"name": "f"}),
        _asked(tools=[_TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
        _asked(tools=[_TOOL], tool_choice="none"),
    ),
    "argument text": (_calling('{"a": 1}', index=0), _calling('{"a":1}'), _calling('{"a": 2}')),
    "instructions": (
        _asked({"role": "developer", "content": "Be brief."}, _HI),
        _asked({"role": "system", "content": "Be brief."}, _HI),
        _asked({"role": "user", "content": "Be brief."}, _HI),
    ),
    "result names": (
        _asked(_HI, {"role": "tool", "tool_call_id": "c", "name": "f", "content": "1"}),
        _asked(_HI, {"role": "tool", "tool_call_id": "c", "content": "1"}),
        _asked(_HI, {"role": "tool", "tool_call_id": "d", "content": "1"}),
    ),
    "end user": (_asked(user="u"), _asked(safety_identifier="u"), _asked(safety_identifier="v")),
    "default choice": (
        _asked(tools=[_TOOL], tool_choice="auto"),
        _asked(tools=[_TOOL]),
        _asked(tools=[_TOOL], tool_choice="required"),
    ),
    "text format": (
        _asked(response_format={"type": "text"}),
        _asked(),
        _asked(response_format={"type": "json_object"}),
    ),
    "tool shape": (_function(description=""), _function(), _function(description="F")),
    "image detail": (
        _pictured({"url": _IMAGE, "detail": "auto"}),
        _pictured({"url": _IMAGE}),
        _pictured({"url": _IMAGE, "detail": "low"}),
    ),
    "echoes": (
        _answered(annotations=[], prefix=False, reasoning_content=""),
        _answered(),
        _answered(annotations=[{"type": "url_citation"}], prefix=True),
    ),
    "one choice": (_asked(n=1), _asked(), _asked(n=2)),
    "function type": (
        _asked(tools=[{"function": _TOOL["function"]}]),
        _asked(tools=[_TOOL]),
        _asked(tools=[{**_TOOL, "type": "other"}]),
    ),
    "unnamed schema": (_schema(), _schema(name="response"), _schema(name="other")),
    "parallel calls": (
        _asked(tools=[_TOOL], parallel_tool_calls=True),
        _asked(tools=[_TOOL]),
        _asked(tools=[_TOOL], parallel_tool_calls=False),
    ),
    "short cache": (_marked(ttl="5m"), _marked(), _marked(ttl="1h")),
}


def _result(*content: Body, **members: Any) -> Body:
    return _parts({"type": "tool_result", "tool_use_id": "c", "content": list(content), **members})


def _used(**members: Any) -> Body:
    return _parts({"type": "tool_use", "id": "c", "name": "f", "input": {}, **members}, role="assistant")


def _custom(**members: Any) -> Body:
    return _asked(tools=[{"name": "f", "input_schema": {"type": "object"}, **members}])


_FORMAT = {"type": "json_schema", "schema": {"type": "object"}}

_ANTHROPIC: dict[str, Case] = {
    **_JSON,
    "system text": (
        _asked(system="Be brief."),
        _asked(system=[{"type": "text", "text": "Be brief."}]),
        _asked(system=[{"type": "text", "text": "Be long."}]),
    ),
    "default choice": (_custom(), {**_custom(), "tool_choice": {"type": "auto"}}, {**_custom(), "tool_choice": "any"}),
    "tool shape": (_custom(type="custom", description=""), _custom(), _custom(description="F")),
    "short cache": (_marked(ttl="5m"), _marked(), _marked(ttl="1h")),
    "one turn": (_asked(_HI, {"role": "user", "content": "Ho"}), _parts(
        {"type": "text", "text": "Hi"}, {"type": "text", "text": "Ho"}
    ), _parts({"type": "text", "text": "Ho"}, {"type": "text", "text": "Hi"})),
    "empty results": (
        _result({"type": "text", "text": ""}, is_error=False),
        _result(),
        _result({"type": "text", "text": "1"}, is_error=True),
    ),
    "schema place": (
        _asked(output_format=_FORMAT),
        _asked(output_config={"format": _FORMAT}),
        _asked(output_config={"format": {**_FORMAT, "schema": {}}}),
    ),
    "usual effort": (
        _asked(output_config={"effort": "high"}), _asked(), _asked(output_config={"effort": "low"})
    ),
    "not strict": (_custom(strict=False), _custom(), _custom(strict=True)),
    "direct caller": (_used(caller={"type": "direct"}), _used(), _used(caller={"type": "code_execution_20250825"})),
}  # fmt: skip


def _turns(*parts: Body, role: str = "user", **members: Any) -> Body:
    return {"contents": [{"role": role, "parts": list(parts)}], **members}


def _generated(**config: Any) -> Body:
    return _turns({"text": "Hi"}, generationConfig=config)


def _declared(**members: Any) -> Body:
    return _turns({"text": "Hi"}, tools=[{"functionDeclarations": [{"name": "f", **members}]}])


def _mode(mode: str) -> Body:
    return {**_declared(), "toolConfig": {"functionCallingConfig": {"mode": mode}}}


_GEMINI: dict[str, Case] = {
    "either case": (
        _turns({"inline_data": {"mime_type": "a/b", "data": "aGk="}}),
        _turns({"inlineData": {"mimeType": "a/b", "data": "aGk="}}),
        _turns({"inlineData": {"mimeType": "a/c", "data": "aGk="}}),
    ),
    "nothing said": (_generated(temperature=None), _generated(), _generated(temperature=0)),
    "list of parts": (
        _turns({"text": "Hi"}, systemInstruction={"role": "system", "parts": [{"text": "Be brief."}]}),
        _turns({"text": "Hi"}, systemInstruction={"parts": [{"text": "Be brief."}]}),
        _turns({"text": "Hi"}, systemInstruction={"parts": [{"text": "Be long."}]}),
    ),
    "roles": (_turns({"text": "Hi"}, role="function"), _turns({"text": "Hi"}), _turns({"text": "Hi"}, role="model")),
    "no thought": (
        _turns({"text": "Hi", "thought": False}), _turns({"text": "Hi"}), _turns({"text": "Hi", "thought": True})
    ),
    "no arguments": (
        _turns({"functionCall": {"name": "f"}}, role="model"),
        _turns({"functionCall": {"name": "f", "args": {}}}, role="model"),
        _turns({"functionCall": {"name": "f", "args": {"a": 1}}}, role="model"),
    ),
    "one turn": (
        {"contents": [{"parts": [{"text": "Hi"}]}, {"parts": [{"text": "Ho"}]}]},
        _turns({"text": "Hi"}, {"text": "Ho"}),
        _turns({"text": "Ho"}, {"text": "Hi"}),
    ),
    "blank texts": (_turns({"text": ""}, {"text": "Hi"}), _turns({"text": "Hi"}), _turns({"text": " "})),
    "same bytes": (
        _turns({"inlineData": {"mimeType": "a/b", "data": "_-8"}}),
        _turns({"inlineData": {"mimeType": "a/b", "data": "/+8="}}),
        _turns({"inlineData": {"mimeType": "a/b", "data": "aGk="}}),
    ),
    "one list": (
        _turns(
            {"text": "Hi"},
            tools=[{"functionDeclarations": [{"name": "f"}]}, {"functionDeclarations": [{"name": "g"}]}],
        ),
        _turns({"text": "Hi"}, tools=[{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}]),
        _turns({"text": "Hi"}, tools=[{"functionDeclarations": [{"name": "f"}]}]),
    ),
    "schema names": (
        _declared(parameters={"type": "object"}),
        _declared(parametersJsonSchema={"type": "object"}),
        _declared(parametersJsonSchema={"type": "string"}),
    ),
    "choice words": (_mode("auto"), _declared(), _mode("any")),
    "defaults": (
        _generated(responseMimeType="text/plain", responseModalities=["TEXT"]),
        _turns({"text": "Hi"}),
        _generated(responseMimeType="application/json"),
    ),
}  # fmt: skip


def _given(*items: Body, **members: Any) -> Body:
    return {"model": "m", "input": list(items) or [{"type": "message", **_HI}], **members}


def _called(arguments: str, **members: Any) -> Body:
    return _given({"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments, **members})


def _spoken(*pieces: Body) -> Body:
    return _given({"type": "message", "role": "assistant", "content": list(pieces)})


def _seen(**members: Any) -> Body:
    return _given(
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": _IMAGE, **members}]}
    )


def _flat(**members: Any) -> Body:
    return _given(tools=[{"type": "function", "name": "f", "parameters": {}, **members}])


_RESPONSES: dict[str, Case] = {
    "absent is null": (_given(temperature=None), _given(), _given(temperature=0)),
    "not streamed": (_given(stream=False), _given(), _given(stream=True)),
    "nothing in a list": (_given(tools=[]), _given(), _flat()),
    "one input": ({"model": "m", "input": "Hi"}, _given(), {"model": "m", "input": "Ho"}),
    "stored prompt": (
        {"prompt": {"id": "p"}, "model": "m", "input": []},
        {"prompt": {"id": "p"}},
        {"prompt": {"id": "q"}},
    ),
    "instructions": (
        _given(instructions="Be brief."),
        _given({"role": "developer", "content": "Be brief."}, _HI),
        _given({"role": "user", "content": "Be brief."}, _HI),
    ),
    "texts": (
        _spoken({"type": "output_text", "text": "Hi", "annotations": []}),
        _spoken({"type": "input_text", "text": "Hi"}),
        _spoken({"type": "output_text", "text": "Hi", "annotations": [{"type": "url_citation"}]}),
    ),
    "status": (_called("{}", status="completed"), _called("{}"), _called("{}", status="incomplete")),
    "argument text": (_called('{"a": 1}'), _called('{"a":1}'), _called('{"a": 2}')),
    "sealed": (
        _given(include=["reasoning.encrypted_content"]),
        _given(),
        _given(include=["message.output_text.logprobs"]),
    ),
    "one summary": (
        _given(reasoning={"summary": "detailed"}),
        _given(reasoning={"summary": "auto"}),
        _given(reasoning={"effort": "low"}),
    ),
    "end user": (_given(user="u"), _given(safety_identifier="u"), _given(safety_identifier="v")),
    "default choice": (_given(tool_choice="auto"), _given(), {**_flat(), "tool_choice": "required"}),
    "text format": (
        _given(text={"format": {"type": "text"}}),
        _given(),
        _given(text={"format": {"type": "json_object"}}),
    ),
    "tool shape": (_flat(description=""), _flat(), _flat(description="F")),
    "image detail": (_seen(detail="auto"), _seen(), _seen(detail="low")),
}

_COHERE: dict[str, Case] = {
    **_JSON,
    "nothing said": (_asked(documents=[]), _asked(), _asked(documents=["a"])),
    "plain documents": (
        _asked(documents=["a"]),
        _asked(documents=[{"data": {"text": "a"}}]),
        _asked(documents=[{"data": {"text": "b"}}]),
    ),
    "given ids": (
        _asked(documents=[{"id": "1", "data": {"text": "a"}}]),
        _asked(documents=[{"data": {"text": "a"}}]),
        _asked(documents=[{"id": "1", "data": {"text": "b"}}]),
    ),
    "schema name": (
        _asked(response_format={"type": "json_object", "schema": {"type": "object"}}),
        _asked(response_format={"type": "json_object", "json_schema": {"type": "object"}}),
        _asked(response_format={"type": "json_object", "json_schema": {"type": "string"}}),
    ),
    "default choice": (_asked(tool_choice="NONE"), _asked(), {**_function(), "tool_choice": "NONE"}),
    "tool shape": _CHAT["tool shape"],
    "image detail": _CHAT["image detail"],
}


def _with_call(**function: Any) -> Body:
    return _asked(_HI, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", **function}}]})


def _answered_call(**members: Any) -> Body:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    return _asked(_HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "4", **members})


_OLLAMA: dict[str, Case] = {
    "not streamed": _JSON["not streamed"],
    "nothing said": (_asked(options={}, format=""), _asked(), _asked(options={"seed": 1}, format="json")),
    "functions": (_with_call(index=0), _with_call(arguments={}), _with_call(arguments={"a": 1})),
    "result names": (_answered_call(tool_name="f"), _answered_call(), _answered_call(tool_name="g")),
    "one stop": (_asked(options={"stop": "x"}), _asked(options={"stop": ["x"]}), _asked(options={"stop": ["y"]})),
    "tool shape": _CHAT["tool shape"],
}


def _thought(**details: Any) -> Body:
    detail = {"type": "reasoning.text", "text": "2+2", **details}
    return _asked(_HI, {"role": "assistant", "content": "4", "reasoning_details": [detail]})


#: By dialect.
BY_DIALECT: dict[str, dict[str, Case]] = {
    "anthropic_messages": _ANTHROPIC,
    "bedrock_converse": CONVERSE,
    "cohere_chat": _COHERE,
    "gemini": _GEMINI,
    "ollama_chat": _OLLAMA,
    "openai_chat": _CHAT,
    "openai_responses": _RESPONSES,
}

_ON: Body = {"thinking": {"type": "enabled"}}
_SWITCHED: Case = (
    _asked(reasoning_effort="low", **_ON),
    _asked(reasoning_effort="low"),
    _asked(reasoning_effort="low", thinking={"type": "disabled"}),
)

#: By kind of provider; all of these are asked in Chat Completions.
BY_KIND: dict[str, dict[str, Case]] = {
    "bedrock-invoke": INVOKE,
    "openai": {"default sampling": (_asked(temperature=1, top_p=1.0), _asked(), _asked(temperature=0))},
    "openrouter": {
        "reasoning names": (
            _asked(reasoning_effort="low", include_reasoning=True),
            _asked(reasoning={"effort": "low"}),
            _asked(reasoning={"effort": "low", "exclude": True}),
        ),
        "reasoning details": (
            _thought(index=0, format="anthropic-claude-v1"),
            _thought(format="unknown"),
            _thought(signature="s"),
        ),
        "usage": (_asked(usage={"include": True}), _asked(), _asked(usage={"include": False})),
    },
    "mistral": {
        "any tool": (
            _asked(tools=[_TOOL], tool_choice="any"),
            _asked(tools=[_TOOL], tool_choice="required"),
            _asked(tools=[_TOOL], tool_choice="none"),
        ),
        "document names": (
            _parts({"type": "document_url", "document_url": "https://example.org/a.pdf", "document_name": "a.pdf"}),
            _parts({"type": "document_url", "document_url": "https://example.org/a.pdf"}),
            _parts({"type": "document_url", "document_url": "https://example.org/b.pdf"}),
        ),
        "sounds": (
            _parts({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}}),
            _parts({"type": "input_audio", "input_audio": "aGk="}),
            _parts({"type": "input_audio", "input_audio": "aG8="}),
        ),
        "closed thoughts": (
            _parts({"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}], "closed": True}),
            _parts({"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}),
            _parts({"type": "thinking", "thinking": [{"type": "text", "text": "2+3"}]}),
        ),
    },
    "xai": {
        "Claude's choice": (
            _asked(tools=[_TOOL], tool_choice={"type": "tool", "name": "f"}),
            _asked(tools=[_TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
            _asked(tools=[_TOOL], tool_choice={"type": "tool", "name": "g"}),
        )
    },
    "deepseek": {"switched on": _SWITCHED},
    "zai": {"switched on": _SWITCHED},
    "groq": {
        "reasoning format": (
            _asked(reasoning_format="parsed"),
            _asked(include_reasoning=True),
            _asked(reasoning_format="hidden"),
        )
    },
    "ollama": {
        "same thought": (
            _answered(reasoning="2+2", reasoning_content="2+2"),
            _answered(reasoning="2+2"),
            _answered(reasoning="2+2", reasoning_content="2+3"),
        )
    },
}
