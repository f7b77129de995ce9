"""Mistral's `POST /v1/ocr`, as values: what may be asked, what is answered, how a refusal looks.

Follows the request and response models of the `mistralai` SDK 3.7. A field that asks for something this
engine does not do is refused by name; nothing that was asked for is silently left out.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from allod.errors import AllodError, Unprocessable

Granularity = Literal["word", "page", "block"]


class ImageUrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class DocumentUrlChunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="document_url"):
    document_url: str
    document_name: str | None = None


class ImageUrlChunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image_url"):
    image_url: str | ImageUrl


class FileChunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file"):
    file_id: str


class OcrRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    document: DocumentUrlChunk | ImageUrlChunk | FileChunk
    model: str | None = None
    id: str | None = None  # older SDKs send one; the answer never repeated it
    pages: str | list[int] | None = None
    include_image_base64: bool | None = None
    image_limit: int | None = None
    image_min_size: int | None = None
    bbox_annotation_format: dict[str, Any] | None = None
    document_annotation_format: dict[str, Any] | None = None
    document_annotation_prompt: str | None = None
    table_format: Literal["markdown", "html"] | None = None
    extract_header: bool | None = None
    extract_footer: bool | None = None
    include_blocks: bool | None = True
    confidence_scores_granularity: Granularity | None = None


_NOT_DONE = {  # field -> why; a value that is None, False or empty asks for nothing
    "include_image_base64": "pictures are not cut out of the page",
    "bbox_annotation_format": "annotation by JSON schema is not available",
    "document_annotation_format": "annotation by JSON schema is not available",
    "document_annotation_prompt": "annotation by prompt is not available",
    "table_format": "tables are not recognised as tables; their text is in the Markdown",
    "extract_header": "headers are not told from text; they are in the Markdown",
    "extract_footer": "footers are not told from text; they are in the Markdown",
}
_request = msgspec.json.Decoder(OcrRequest)
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_SELECTION = re.compile(r"^\s*\d{1,6}\s*(-\s*\d{1,6}\s*)?(,\s*\d{1,6}\s*(-\s*\d{1,6}\s*)?)*$", re.ASCII)


class Invalid(Unprocessable):
    """One field of the request is wrong; `loc` names it as FastAPI does: ("body", "pages")."""

    def __init__(self, loc: tuple[str | int, ...], message: str, kind: str = "value_error") -> None:
        super().__init__("request.invalid", message)
        self.loc = loc
        self.kind = kind


def parse(body: bytes) -> OcrRequest:
    """The request. Raises Invalid naming the field."""
    try:
        request = _request.decode(body)
    except msgspec.ValidationError as e:
        found = _AT.match(str(e))
        assert found is not None
        raise Invalid(_loc(found["path"] or ""), found["what"], "type_error") from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid(("body",), "the body is not JSON", "json_invalid") from e
    for field, why in _NOT_DONE.items():
        if getattr(request, field):
            raise Invalid(("body", field), f"not supported by this engine: {why}", "unsupported")
    return request


def _loc(path: str) -> tuple[str | int, ...]:
    return ("body", *(name for name in re.split(r"[.\[\]]+", path) if name and name != "..."))


def selected(pages: str | list[int] | None, count: int, at_most: int) -> tuple[int, ...]:
    """The page indexes asked for, in the order asked, each once. Raises Invalid on one that does not exist.

    `at_most` bounds how many may be selected; None selects all `count` pages, whatever the bound.
    """
    if pages is None:
        return tuple(range(count))
    wanted: dict[int, None] = {}
    for low, high in _ranges(pages):
        if high >= count or low < 0:
            raise Invalid(("body", "pages"), f"the document has pages 0 to {count - 1}", "page_out_of_range")
        wanted.update(dict.fromkeys(range(low, high + 1)))
        if len(wanted) > at_most:
            raise Invalid(("body", "pages"), f"at most {at_most} pages can be selected", "too_many_pages")
    if not wanted:
        raise Invalid(("body", "pages"), "no page is selected", "no_pages")
    return tuple(wanted)


def _ranges(pages: str | list[int]) -> list[tuple[int, int]]:
    if isinstance(pages, list):
        return [(n, n) for n in pages]
    if not _SELECTION.match(pages):
        raise Invalid(("body", "pages"), 'expected numbers and ranges from 0, as in "0,2-4"', "pages_invalid")
    ranges = []
    for part in pages.split(","):
        low, _, high = part.partition("-")
        ranges.append((int(low), int(high or low)))
        if ranges[-1][0] > ranges[-1][1]:
            raise Invalid(("body", "pages"), f"the range {part.strip()} runs backwards", "pages_invalid")
    return ranges


# --- refusals -----------------------------------------------------------------------------------------


def refusal(error: AllodError) -> dict[str, Any]:
    """The body of an error answer: `{detail}` for a 422, Mistral's error object for every other status."""
    if isinstance(error, Invalid):
        return {"detail": [{"loc": list(error.loc), "msg": error.message, "type": error.kind}]}
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    if error.status == 422:
        return {"detail": [{"loc": ["body", "document"], "msg": message, "type": error.code}]}
    return {
        "object": "error",
        "message": message,
        "type": "invalid_request_error" if error.status < 500 else "server_error",
        "param": error.details.get("param"),
        "code": error.code,
    }
