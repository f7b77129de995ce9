"""Mistral messages as values, and as OpenAI messages. Pure.

What OpenAI's form cannot say is refused with the field's name (`problems.Invalid`), never dropped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from allod.api.problems import Invalid, Loc


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mistral itself refuses fields it does not know; so a typo cannot change an answer unseen."""


class TextChunk(_Strict, frozen=True, tag_field="type", tag="text"):
    text: str


class ImageUrl(_Strict, frozen=True):
    url: str
    detail: str | None = None


class ImageChunk(_Strict, frozen=True, tag_field="type", tag="image_url"):
    image_url: str | ImageUrl


class ReferenceChunk(_Strict, frozen=True, tag_field="type", tag="reference"):
    reference_ids: list[int | str]


class ThinkChunk(_Strict, frozen=True, tag_field="type", tag="thinking"):
    thinking: list[TextChunk | ReferenceChunk]
    signature: str | None = None
    closed: bool | None = None


class DocumentChunk(_Strict, frozen=True, tag_field="type", tag="document_url"):
    document_url: str
    document_name: str | None = None


class FileChunk(_Strict, frozen=True, tag_field="type", tag="file"):
    file_id: str


class AudioChunk(_Strict, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: str | dict[str, Any]


Chunk = TextChunk | ImageChunk | ReferenceChunk | ThinkChunk | DocumentChunk | FileChunk | AudioChunk
Content = str | list[Chunk] | None


class FunctionCall(_Strict, frozen=True):
    name: str
    arguments: str | dict[str, Any]


class ToolCall(_Strict, frozen=True):
    function: FunctionCall
    id: str = "null"
    type: str = "function"
    index: int = 0


class SystemMessage(_Strict, frozen=True, tag_field="role", tag="system"):
    content: str | list[Chunk]


class UserMessage(_Strict, frozen=True, tag_field="role", tag="user"):
    content: Content


class AssistantMessage(_Strict, frozen=True, tag_field="role", tag="assistant"):
    content: Content = None
    tool_calls: list[ToolCall] | None = None
    prefix: bool = False


class ToolMessage(_Strict, frozen=True, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str | None = None
    name: str | None = None


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage
OpenAI = dict[str, Any]

_LATER: dict[type, tuple[str, str]] = {
    DocumentChunk: ("document_url", "send the document to /v1/ocr first and its text here"),
    FileChunk: ("file_id", "send the content itself; stored files are not served yet"),
    AudioChunk: ("input_audio", "audio is not served yet"),
}


def to_openai(message: Message, loc: Loc) -> OpenAI:
    """One message. `loc` is where it stands, for errors."""
    if isinstance(message, AssistantMessage):
        return _assistant(message, loc)
    images = isinstance(message, UserMessage)
    thinking, content = _split(message.content, (*loc, "content"), images=images)
    if thinking:
        raise Invalid("value_error", (*loc, "content"), "only an assistant's message can hold thinking")
    if isinstance(message, SystemMessage):
        return {"role": "system", "content": content or ""}
    if isinstance(message, UserMessage):
        return {"role": "user", "content": content or ""}
    told: OpenAI = {"role": "tool", "content": content or ""}
    told.update({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})
    told.update({"name": message.name} if message.name else {})
    return told


def _assistant(message: AssistantMessage, loc: Loc) -> OpenAI:
    thinking, content = _split(message.content, (*loc, "content"), images=False)
    said: OpenAI = {"role": "assistant", "content": content}
    if thinking:
        said["reasoning_content"] = thinking
    if message.tool_calls:
        said["tool_calls"] = [
            _tool_call(call, (*loc, "tool_calls", at)) for at, call in enumerate(message.tool_calls)
        ]
    elif content is None:
        said["content"] = ""
    return said


def _tool_call(call: ToolCall, loc: Loc) -> OpenAI:
    if call.type != "function":
        raise Invalid("value_error", (*loc, "type"), "only function calls exist here", value=call.type)
    if call.id == "null":
        raise Invalid("missing", (*loc, "id"), "a tool call needs the id that its answer names")
    given = call.function.arguments
    arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _split(content: Content, loc: Loc, *, images: bool) -> tuple[str, str | list[OpenAI] | None]:
    """Content as (thinking text, what OpenAI calls content)."""
    if content is None or isinstance(content, str):
        return "", content
    thinking: list[str] = []
    parts: list[OpenAI] = []
    for at, chunk in enumerate(content):
        if isinstance(chunk, ThinkChunk):
            thinking.append(_thinking(chunk, (*loc, at)))
        else:
            parts.append(_part(chunk, (*loc, at), images=images))
    return "".join(thinking), parts or None


def _thinking(chunk: ThinkChunk, loc: Loc) -> str:
    if chunk.closed is False:
        raise Invalid("value_error", (*loc, "closed"), "thinking cannot be continued, only answered")
    return "".join(part.text if isinstance(part, TextChunk) else _cited(part) for part in chunk.thinking)


def _part(chunk: Chunk, loc: Loc, *, images: bool) -> OpenAI:
    if isinstance(chunk, TextChunk):
        return {"type": "text", "text": chunk.text}
    if isinstance(chunk, ReferenceChunk):
        return {"type": "text", "text": _cited(chunk)}
    if isinstance(chunk, ImageChunk):
        if not images:
            raise Invalid("value_error", (*loc, "image_url"), "only a user's message can hold images")
        url = chunk.image_url if isinstance(chunk.image_url, ImageUrl) else ImageUrl(url=chunk.image_url)
        image: OpenAI = {"url": url.url}
        image.update({"detail": url.detail} if url.detail else {})
        return {"type": "image_url", "image_url": image}
    field, instead = _LATER[type(chunk)]
    raise Invalid("value_error", (*loc, field), f"{field} chunks are not served", hint=instead)


def _cited(chunk: ReferenceChunk) -> str:
    """OpenAI has no citations: the numbers stay readable in the text."""
    return "".join(f"[{reference}]" for reference in chunk.reference_ids)


def has_image(said: list[Message]) -> bool:
    return any(
        isinstance(chunk, ImageChunk)
        for message in said
        if isinstance(message.content, list)
        for chunk in message.content
    )


def prefix_text(message: Message) -> str | None:
    """The text that an assistant's `prefix` message begins the answer with; None where there is none."""
    if not isinstance(message, AssistantMessage) or not message.prefix:
        return None
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "".join(chunk.text for chunk in message.content if isinstance(chunk, TextChunk))
