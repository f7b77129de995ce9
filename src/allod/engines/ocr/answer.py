"""From pages that were read to Mistral's OCR response. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from allod.engines.ocr.recognise import PageText
from allod.engines.ocr.shape import Granularity
from allod.engines.ocr.text import Block
from allod.errors import AllodError

_CERTAINTY = 100.0  # confidences are kept 0 to 100 and answered 0 to 1


class PageFailed(msgspec.Struct, frozen=True):
    """A page of a longer document that could not be read; the others were."""

    index: int
    error: AllodError


def response(
    pages: Sequence[PageText | PageFailed],
    *,
    model: str,
    document_bytes: int,
    granularity: Granularity | None,
    blocks: bool,
    origins: Mapping[str, str],
) -> dict[str, Any]:
    """The whole answer. `origins` says for each engine whose work its reading is."""
    return {
        "pages": [
            _failed(p) if isinstance(p, PageFailed) else _page(p, granularity, blocks=blocks, origins=origins)
            for p in pages
        ],
        "model": model,
        "usage_info": {
            "pages_processed": sum(isinstance(p, PageText) for p in pages),
            "doc_size_bytes": document_bytes,
        },
        "document_annotation": None,
    }


def _page(
    page: PageText, granularity: Granularity | None, *, blocks: bool, origins: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "index": page.index,
        "markdown": page.markdown,
        "images": [],
        "tables": [],
        "hyperlinks": [],
        "header": None,
        "footer": None,
        "dimensions": {"dpi": page.dpi, "height": page.height, "width": page.width},
        "confidence_scores": _scores(page, granularity) if granularity else None,
        "blocks": [_block(b, scored=granularity == "block") for b in page.blocks] if blocks else None,
        "allod": {
            "engine": page.engine,
            "origin": origins[page.engine],
            "confidence": _share(page.confidence),
            "rotation": page.rotation,
            "script": page.script or None,
            "milliseconds": page.milliseconds,
        },
    }


def _failed(page: PageFailed) -> dict[str, Any]:
    return {
        "index": page.index,
        "markdown": "",
        "images": [],
        "tables": [],
        "hyperlinks": [],
        "header": None,
        "footer": None,
        "dimensions": None,
        "confidence_scores": None,
        "blocks": None,
        "allod": {"error": page.error.as_dict()},
    }


def _scores(page: PageText, granularity: Granularity) -> dict[str, Any]:
    words = [p.word.confidence for p in page.words]
    scores: dict[str, Any] = {
        "average_page_confidence_score": _share(page.confidence),
        "minimum_page_confidence_score": _share(min(words, default=page.confidence)),
    }
    if granularity == "word":
        scores["word_confidence_scores"] = [
            {"text": p.word.text, "confidence": _share(p.word.confidence), "start_index": p.start}
            for p in page.words
        ]
    return scores


def _block(block: Block, *, scored: bool) -> dict[str, Any]:
    left, top, right, bottom = block.box
    shown: dict[str, Any] = {
        "type": "title" if block.title else "text",
        "top_left_x": left,
        "top_left_y": top,
        "bottom_right_x": right,
        "bottom_right_y": bottom,
        "content": block.text,
    }
    if scored:
        words = [w.confidence for w in block.words]
        shown["confidence_scores"] = {
            "average_content_confidence_score": _share(sum(words) / len(words)),
            "minimum_content_confidence_score": _share(min(words)),
        }
    return shown


def _share(confidence: float) -> float:
    return round(confidence / _CERTAINTY, 4)
