"""A Mistral chat or fill-in-the-middle request as the OpenAI request that means the same. Pure.

A field that no engine here can honour is refused by name; a field that changes nothing of the answer
(`metadata`, `service_tier`) is accepted and not passed on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from allod import limits
from allod.api.mistral import messages
from allod.api.mistral.messages import AssistantMessage, Message, OpenAI, SystemMessage
from allod.api.problems import Invalid, invalid
from allod.models.fim import FimForm

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]

# Put before the conversation when `safe_prompt` is set.
SAFE_PROMPT = (
    "Answer helpfully and truthfully, with respect for every person. Do not assist with "
    "anything harmful, hateful, unlawful or deceptive, and do not add prejudice; where an "
    "answer would do harm, say so and decline."
)


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool = False


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None


class FunctionName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    function: FunctionName
    type: Literal["function"] = "function"


class Prediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["content"] = "content"
    content: str = ""


class _Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What chat and fill-in-the-middle share."""

    model: str
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    min_tokens: Count | None = None
    stream: bool = False
    stop: str | list[str] | None = None
    random_seed: Count | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None


class ChatRequest(_Generation, frozen=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "any", "required"] | ToolChoice | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    prompt_logprobs: bool | None = None
    top_prompt_logprobs: Count | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=limits.CHOICES_MAX)] | None = None
    prediction: Prediction | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    prompt_mode: str | None = None
    guardrails: list[Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    safe_prompt: bool = False


class FimRequest(_Generation, frozen=True):
    prompt: str
    suffix: str | None = None


STREAMED: OpenAI = {"stream": True, "stream_options": {"include_usage": True}}

T = TypeVar("T", ChatRequest, FimRequest)

_SAME_NAME = (
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "logprobs",
    "top_logprobs",
    "n",
    "parallel_tool_calls",
    "reasoning_effort",
    "prompt_cache_key",
)


def parse(value: Any, kind: type[T]) -> T:
    """Plain JSON values as a request. Raises Invalid with the field's path."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid(error, value, kind.__struct_fields__) from error


def chat(request: ChatRequest) -> OpenAI:
    """The OpenAI chat request. Raises Invalid naming what cannot be honoured."""
    _refuse(request)
    _last_role(request)
    body = _generation(request)
    body["messages"] = [
        messages.to_openai(message, ("messages", at)) for at, message in enumerate(_guarded(request))
    ]
    if request.tools:
        body["tools"] = [_tool(tool, at) for at, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.prediction is not None:
        body["prediction"] = msgspec.to_builtins(request.prediction)
    if request.repetition_penalty is not None:
        # Two engines, two names for one thing; each ignores the other's.
        body["repetition_penalty"] = body["repeat_penalty"] = request.repetition_penalty
    if messages.prefix_text(request.messages[-1]) is not None:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def fim(request: FimRequest, form: FimForm | None) -> OpenAI:
    """The OpenAI completion request whose prompt holds the gap the way this model was trained to read it."""
    if request.min_tokens:
        raise _least()
    if request.suffix and form is None:
        raise Invalid(
            "value_error",
            ("suffix",),
            f"the model {request.model!r} declares no fill-in-the-middle tokens and would ignore the suffix",
            hint="choose a model whose capabilities.completion_fim is true in /v1/models",
        )
    body = _generation(request)
    body["prompt"] = _gap(request.prompt, request.suffix or "", form) if form else request.prompt
    return body


def _gap(prompt: str, suffix: str, form: FimForm) -> str:
    before, after = form.prefix + prompt, form.suffix + suffix
    return (after + before if form.suffix_first else before + after) + form.middle


def _generation(request: ChatRequest | FimRequest) -> OpenAI:
    body: OpenAI = {}
    for name in _SAME_NAME:
        value = getattr(request, name, None)
        if value is not None:
            body[name] = value
    if request.random_seed is not None:
        body["seed"] = request.random_seed
    if request.stream:
        body |= STREAMED
    return body


def _refuse(request: ChatRequest) -> None:
    if request.guardrails:
        raise Invalid(
            "value_error",
            ("guardrails",),
            "guardrails are not served yet, and a request that asks for them is not answered without them",
        )
    if request.prompt_mode is not None:
        raise Invalid(
            "value_error",
            ("prompt_mode",),
            "this node adds no prompts of its own",
            value=request.prompt_mode,
            hint="send the reasoning instructions as a system message, or set reasoning_effort",
        )
    if request.min_tokens:
        raise _least()
    if request.prompt_logprobs or request.top_prompt_logprobs:
        name = "prompt_logprobs" if request.prompt_logprobs else "top_prompt_logprobs"
        raise Invalid("value_error", (name,), "log probabilities of the prompt are not served")


def _least() -> Invalid:
    return Invalid("value_error", ("min_tokens",), "no engine here can promise a least number of tokens")


def _last_role(request: ChatRequest) -> None:
    last = len(request.messages) - 1
    for at, message in enumerate(request.messages):
        loc = ("messages", at, "prefix")
        if isinstance(message, AssistantMessage) and message.prefix and at != last:
            raise Invalid("value_error", loc, "only the last message can be a prefix")
        if isinstance(message, AssistantMessage) and message.prefix and message.tool_calls:
            raise Invalid("value_error", loc, "a prefix is text and calls no tools")
    closing = request.messages[-1]
    if isinstance(closing, SystemMessage) or (isinstance(closing, AssistantMessage) and not closing.prefix):
        raise Invalid(
            "value_error",
            ("messages", last, "role"),
            "the last message is a user's, a tool's, or an assistant's with prefix true",
        )


def _guarded(request: ChatRequest) -> list[Message]:
    if not request.safe_prompt:
        return request.messages
    # One system message: many chat templates know only one, and only in front.
    first, *rest = request.messages
    if not isinstance(first, SystemMessage):
        return [SystemMessage(content=SAFE_PROMPT), *request.messages]
    if isinstance(first.content, str):
        return [SystemMessage(content=f"{SAFE_PROMPT}\n\n{first.content}"), *rest]
    return [SystemMessage(content=[messages.TextChunk(text=SAFE_PROMPT + "\n\n"), *first.content]), *rest]


def _tool(tool: dict[str, Any], at: int) -> OpenAI:
    kind = tool.get("type", "function")
    if kind != "function":
        raise Invalid(
            "value_error",
            ("tools", at, "type"),
            f"the built-in tool {str(kind)[:60]!r} is not served; only function tools are",
            value=kind,
        )
    try:
        function = msgspec.convert(tool.get("function"), Function)
    except msgspec.ValidationError as error:
        found = invalid(error, tool.get("function"), Function.__struct_fields__)
        raise Invalid(
            found.kind, ("tools", at, "function", *found.loc), found.text, value=found.value
        ) from error
    return {"type": "function", "function": _given(function)}


def _tool_choice(choice: str | ToolChoice) -> str | OpenAI:
    if isinstance(choice, ToolChoice):
        return {"type": "function", "function": {"name": choice.function.name}}
    return "required" if choice == "any" else choice


def _response_format(wanted: ResponseFormat) -> OpenAI:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.json_schema is None:
        raise Invalid("missing", ("response_format", "json_schema"), "the schema is missing")
    return {"type": "json_schema", "json_schema": _given(wanted.json_schema)}


def _given(value: msgspec.Struct) -> OpenAI:
    """A value's fields without those that were not set."""
    fields: OpenAI = msgspec.to_builtins(value)
    return {name: field for name, field in fields.items() if field is not None}
