"""What a call asks, from keyword arguments: the fields of CompletionSpec and of GenerationParams, side by side."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from trunkline import builders
from trunkline.v1.completion_pb2 import AudioOutput, CompletionSpec, ReasoningArgument, ResponseFormat, Tool, ToolChoice
from trunkline.v1.config_pb2 import LlmConfig
from trunkline.v1.generation_pb2 import GenerationParams, ReasoningConfig, Verbosity
from trunkline.v1.message_pb2 import Message

Prompt: TypeAlias = str | Message | Iterable[Message] | CompletionSpec
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class SpecOptions(TypedDict, total=False):
    """Every option of a completion; each is described at its field in the proto files."""

    # CompletionSpec
    model: str
    config: str
    inline_config: LlmConfig
    tools: Iterable[Tool]
    # "auto", "none", "required", or the name of the one tool to call.
    tool_choice: ToolChoice | str
    response_format: ResponseFormat
    params: GenerationParams
    labels: Mapping[str, str]
    end_user_id: str
    provider_options_json: Mapping[str, str]
    tool_result_max_chars: int
    reasoning_argument: ReasoningArgument
    strict_tools: bool
    max_tool_calls: int
    extra_system_text: str
    previous_response_id: str
    store: bool
    audio_output: AudioOutput
    # GenerationParams
    max_output_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    seed: int
    stop_sequences: Iterable[str]
    logit_bias: Mapping[str, float]
    logprobs: bool
    top_logprobs: int
    n: int
    reasoning: ReasoningConfig | Effort
    verbosity: Verbosity | Literal["low", "medium", "high"]
    service_tier: str
    parallel_tool_calls: bool


def build_spec(prompt: Prompt, options: Mapping[str, Any]) -> CompletionSpec:
    """The spec of a call. A spec given as prompt is copied, and the options stand over it.

    Raises TypeError naming the option that does not exist or does not take its value.
    """
    spec = CompletionSpec()
    if isinstance(prompt, CompletionSpec):
        spec.CopyFrom(prompt)
    elif isinstance(prompt, str):
        spec.messages.append(builders.user(prompt))
    else:
        spec.messages.extend([prompt] if isinstance(prompt, Message) else prompt)
    targets = [name for name in _TARGETS if options.get(name) is not None]
    if len(targets) > 1:
        raise TypeError(f"{' and '.join(targets)}: a call has one target; give one of them")
    # `params` as a whole first, so that its fields given one by one stand over it.
    for name, value in sorted(options.items(), key=lambda option: option[0] != "params"):
        if value is not None:
            _set(spec, name, value)
    return spec


def _set(spec: CompletionSpec, name: str, value: Any) -> None:
    owner: CompletionSpec | GenerationParams = spec
    if name not in _SPEC_FIELDS:
        if name not in _PARAM_FIELDS:
            near = difflib.get_close_matches(name, [*_SPEC_FIELDS, *_PARAM_FIELDS], 1)
            raise TypeError(f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        owner = spec.params
    try:
        # The constructor takes lists, maps and messages alike; what it made then replaces the field.
        made = type(owner)(**{name: _CONVERT[name](value) if name in _CONVERT else value})
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"{name}: cannot be {value!r}") from error
    owner.ClearField(name)  # type: ignore[arg-type]  # checked above
    owner.MergeFrom(made)  # type: ignore[arg-type]  # of the same type


def _tool_choice(value: ToolChoice | str) -> ToolChoice:
    if not isinstance(value, str):
        return value
    if value in {"auto", "none", "required"}:
        return ToolChoice(mode=f"TOOL_CHOICE_MODE_{value.upper()}")  # type: ignore[arg-type]  # by name
    return ToolChoice(tool_name=value)


def _reasoning(value: ReasoningConfig | str) -> ReasoningConfig:
    if not isinstance(value, str):
        return value
    return ReasoningConfig(effort=f"REASONING_EFFORT_{value.upper()}")  # type: ignore[arg-type]  # by name


def _verbosity(value: Any) -> Any:
    return f"VERBOSITY_{value.upper()}" if isinstance(value, str) else value


_CONVERT: dict[str, Callable[[Any], Any]] = {
    # A string is iterable, and its letters are not what was meant.
    "stop_sequences": lambda value: [value] if isinstance(value, str) else value,
    "tool_choice": _tool_choice,
    "reasoning": _reasoning,
    "verbosity": _verbosity,
}
_TARGETS = tuple(field.name for field in CompletionSpec.DESCRIPTOR.oneofs_by_name["target"].fields)
_SPEC_FIELDS = frozenset(CompletionSpec.DESCRIPTOR.fields_by_name) - {"messages"}
_PARAM_FIELDS = frozenset(GenerationParams.DESCRIPTOR.fields_by_name)
