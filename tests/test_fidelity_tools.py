"""The tools that compare with recordings: what they call the same is the same, and what differs is found."""

from __future__ import annotations

import copy
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from tests.fidelity import corpus, equivalences, mismatches, requests_run, targets
from tests.fidelity.equivalence_cases import BY_DIALECT, BY_KIND, Case
from tests.fidelity.requests import anthropic_messages, openai_chat

from trunkline_server import providers

ROWS = [
    *((dialect, "", name, case) for dialect, cases in BY_DIALECT.items() for name, case in cases.items()),
    *(("openai_chat", kind, name, case) for kind, cases in BY_KIND.items() for name, case in cases.items()),
]
each_row = pytest.mark.parametrize(
    ("dialect", "kind", "name", "case"), ROWS, ids=[f"{kind or dialect}-{name}" for dialect, kind, name, _ in ROWS]
)


def differ(one: dict[str, Any], other: dict[str, Any], dialect: str, kind: str = "") -> list[str]:
    return equivalences.differences(copy.deepcopy(one), copy.deepcopy(other), dialect, kind)


@each_row
def test_an_equivalence_holds_for_what_asks_the_same_and_for_nothing_else(
    dialect: str, kind: str, name: str, case: Case
):
    one, other, different = case

    assert differ(one, other, dialect, kind) == []
    assert differ(one, different, dialect, kind)
    assert differ(other, different, dialect, kind)


@each_row
def test_without_its_row_what_asks_the_same_differs(
    dialect: str, kind: str, name: str, case: Case, monkeypatch: pytest.MonkeyPatch
):
    table, key = (equivalences.KINDS, kind) if kind else (equivalences.TABLE, dialect)
    monkeypatch.setitem(table, key, tuple(row for row in table[key] if row.name != name))

    assert differ(case[0], case[1], dialect, kind)


def test_every_row_has_a_case_and_a_reason():
    # Vertex AI's dialects share the tables of those that they vary.
    tables = {id(rows): rows for rows in equivalences.TABLE.values()}
    shown = {(id(equivalences.TABLE[dialect]), name) for dialect, cases in BY_DIALECT.items() for name in cases}

    assert sorted(row.name for key, rows in tables.items() for row in rows if (key, row.name) not in shown) == []
    assert len(shown) == sum(map(len, tables.values()))
    assert {kind: set(cases) for kind, cases in BY_KIND.items()} == {
        kind: {row.name for row in rows} for kind, rows in equivalences.KINDS.items()
    }
    assert all(row.reason for rows in (*equivalences.TABLE.values(), *equivalences.KINDS.values()) for row in rows)


def test_options_are_those_on_the_list_and_no_others():
    body = {"model": "m", "provider": {"order": ["a"]}, "metadata": {"a": "b"}, "thinking": {"clear_thinking": False}}

    assert equivalences.options_of(body, "openai_chat") == {"metadata": {"a": "b"}}
    assert equivalences.options_of(body, "openai_chat", "openrouter").keys() == {"metadata", "provider"}
    assert equivalences.options_of(body, "openai_chat", "zai")["thinking"] == {"clear_thinking": False}


def test_options_never_hold_what_the_contract_has_words_for():
    words = {
        "contents", "functions", "input", "max_completion_tokens", "max_output_tokens", "max_tokens", "messages",
        "model", "n", "reasoning", "reasoning_effort", "response_format", "seed", "stop", "stop_sequences", "system",
        "systemInstruction", "temperature", "text", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }  # fmt: skip

    for allowed in (*equivalences.OPTIONS.values(), *equivalences.KIND_OPTIONS.values()):
        assert not words & allowed


# -- requests through the spec and back -------------------------------------------------------------------------------

PNG = "data:image/png;base64,iVBORw0KGgo="
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
F = {"type": "function", "function": {"name": "f", "description": "F", "parameters": {"type": "object"}}}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": PNG}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ],
    "tools": [F],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object"}}},
    "max_tokens": 10,
    "temperature": 0.5,
    "stop": ["x"],
    "stream": True,
}
CLAUDE: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "2+2", "signature": "s"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "1"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "defer_loading": True}],
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "max_tokens": 4000,
}


def compared(request: dict[str, Any], kind: str, path: str = "") -> tuple[list[str], list[str]]:
    model = request.get("model", "m")
    return requests_run.compared(
        corpus.Recording("r", f"{kind}.chat", "chat", request, path, model, streamed=False, vectors=0), kind
    )


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("vllm", CHAT),
        ("xai", CHAT),
        ("anthropic", CLAUDE),
        ("openrouter", {**CHAT, "reasoning": {"max_tokens": 2000}, "seed": 1, "top_k": 3}),
        ("deepseek", {"model": "deepseek-v4", "messages": CHAT["messages"][:1], "thinking": {"type": "enabled"}}),
        ("zai", {"model": "glm-5.2", "messages": CHAT["messages"][:1], "reasoning_effort": "high", "seed": 3}),
        ("groq", {"model": "qwen/qwen3-32b", "messages": CHAT["messages"][:1], "reasoning_effort": "default"}),
        ("groq", {"model": "openai/gpt-oss-20b", "messages": CHAT["messages"][:1], "reasoning_format": "parsed"}),
    ],
)
def test_a_request_comes_back_from_the_spec_as_it_was(kind: str, request_: dict[str, Any]):
    assert compared(request_, kind) == ([], [])


@pytest.mark.parametrize("member", ["n", "logit_bias", "store", "made_up"])
def test_a_member_that_gets_lost_is_found(member: str):
    # Groq has none of these; nobody has the last.
    value = {"n": 2, "logit_bias": {"1": 5}, "store": True, "made_up": 1}[member]

    assert compared({**CHAT, member: value}, "groq") == ([member], [])


def test_what_no_word_of_the_contract_says_is_told_apart_from_a_difference():
    strange = {"model": "m", "messages": [{"role": "user", "content": [{"type": "hologram"}]}]}

    assert compared(strange, "vllm") == (["not in the contract: ValueError"], [])


def test_options_that_were_needed_are_counted():
    assert compared({**CHAT, "provider": {"order": ["a"]}}, "openrouter") == ([], ["provider"])
    kept = {"type": "enabled", "clear_thinking": False}
    assert compared({"model": "glm-4.7", "messages": CHAT["messages"][:1], "thinking": kept}, "zai") == (
        [],
        ["thinking.clear_thinking"],
    )
    assert compared({**CHAT, "provider": {"order": ["a"]}}, "xai") == (["provider"], [])


def test_a_model_that_the_path_names_is_not_missed_in_the_body():
    unnamed = {name: value for name, value in CHAT.items() if name != "model"}

    assert compared(unnamed, "openai", "/openai/deployments/m/chat/completions") == ([], [])
    assert compared(unnamed, "openai", "/v1/chat/completions") == (["model"], [])


def test_base64_that_the_recording_cut_short_is_made_whole():
    cut = {"a": ["data:image/png;base64,iVBORw<elided 900 chars>", "as it <is>", 1, None]}

    assert corpus.with_whole_base64(cut) == {"a": ["data:image/png;base64,iVBO", "as it <is>", 1, None]}
    assert compared(
        {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": cut["a"][0]}]}]}, "vllm"
    ) == ([], [])


def test_a_tool_that_says_more_than_the_contract_goes_verbatim():
    spec = anthropic_messages.spec_from(CLAUDE)

    assert spec.tools[0].provider.type == "custom"
    assert json.loads(spec.tools[0].provider.config_json)["defer_loading"] is True


def test_thoughts_go_back_in_the_words_of_whoever_thought_them():
    detail = {"type": "reasoning.text", "text": "2+2", "signature": "s", "id": "d1"}
    sealed = {"type": "reasoning.encrypted", "data": "x"}
    spec = openai_chat.spec_from(
        {"messages": [{"role": "assistant", "reasoning_details": [detail, sealed], "reasoning": "2+2"}]}
    )

    first, second = spec.messages[0].parts
    assert (first.reasoning.text, first.signature, first.item_id) == ("2+2", "s", "d1")
    assert json.loads(second.reasoning.encrypted) == sealed


def test_a_recording_that_is_wrong_is_named_unless_its_reason_is_known():
    known = mismatches.KNOWN[0]
    scored = [
        "openai.chat  1858 of  1860   99.89 %  text 1858/1860",
        f"     1 x {known.family}: {known.differs}: {known.recording}",
        "     2 x openai.chat: text, tool_calls: 0123456789abcdef fedcba9876543210",
        "fidelity: 99.89 % (1858 of 1860)",
    ]

    assert mismatches.unexplained(scored) == [
        ("openai.chat", "0123456789abcdef"),
        ("openai.chat", "fedcba9876543210"),
    ]
    assert all(each.reason for each in mismatches.KNOWN)


def test_vectors_are_counted_whatever_their_answer_looks_like():
    def vectors(answer: dict[str, Any]) -> int:
        return corpus._vectors({"response_body": json.dumps(answer)})

    assert vectors({"data": [{"embedding": [0.1]}] * 3}) == 3
    assert vectors({"embeddings": {"float": [[0.1], [0.2]]}}) == 2
    assert vectors({"predictions": []}) == vectors({"message": "no"}) == 0


def test_families_are_served_by_kinds_that_exist():
    kinds = frozenset(providers.KINDS)

    assert targets.kind_for("openai.chat", kinds) == "openai"
    assert targets.kind_for("gemini.openai-chat", kinds) == "gemini-openai"
    assert targets.kind_for("bedrock.invoke", kinds) == "bedrock-invoke"
    assert targets.kind_for("nobody.chat", kinds) is None


# -- the run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of three: one that comes back, one that does not, and one of an endpoint that nobody serves."""
    (tmp_path / "recordings").mkdir()
    lost = {**CHAT, "made_up": 1}
    rows = [{"id": "a", "request_json": CHAT}, {"id": "b", "request_json": lost}, {"id": "c", "request_json": None}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "recordings" / "xai.chat.jsonl").write_text(text)
    with lzma.open(tmp_path / "recordings" / "nobody.chat.jsonl.xz", "wt") as packed:
        packed.write(json.dumps({"id": "d", "request_json": CHAT}) + "\n")
    return tmp_path


def run(*arguments: object) -> int:
    return requests_run.main([str(argument) for argument in arguments])


def test_the_run_ends_with_how_many_came_back_equal(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--corpus", folder, "--out", folder / "out.jsonl") == 0

    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "fidelity-requests: 33.33 % (1 of 3)"
    assert said[-2] == "needed provider_options_json: 0"
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert {line["id"]: (line["equal"], line["differs"]) for line in lines} == {
        "a": (True, []),
        "b": (False, ["made_up"]),
        "d": (False, ["not served yet"]),
    }


@pytest.mark.parametrize(("least", "code"), [(33, 0), (34, 1)])
def test_the_run_fails_below_the_percentage_that_is_wanted(folder: Path, least: int, code: int):
    assert run("--corpus", folder, "--min", least) == code


def test_the_run_can_be_held_to_some_families(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--corpus", folder, "--families", "nobody.chat", "--min", 1) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "fidelity-requests: 0.00 % (0 of 1)"


def test_the_run_says_what_is_missing_where_there_is_no_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--corpus", tmp_path) == 2
    assert str(tmp_path / "recordings") in capsys.readouterr().err


def test_nothing_to_compare_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "recordings").mkdir()

    assert run("--corpus", tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "fidelity-requests: 0.00 % (0 of 0)"
