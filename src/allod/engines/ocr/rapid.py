"""RapidOCR, for Latin pages that Tesseract is unsure of. Loaded on first use: it costs a second and 1 GB.

Its line classifier is off: it turns correct lines upside down. One line at a time and one thread, so that a
page costs the same however many workers there are.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allod.engines.launch import TELEMETRY_OFF
from allod.engines.ocr.layout import in_reading_order
from allod.engines.ocr.text import Block, Box, Line, Word

ORIGIN = "PP-OCRv6 weights by Baidu (CN), Apache-2.0, packaged by RapidAI"
MODEL_FILES = ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")
_SETTINGS: dict[str, Any] = {
    "Global.use_cls": False,
    "Global.log_level": "error",
    "Rec.rec_batch_num": 1,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


def installed() -> bool:
    """Whether the package is there. Imports nothing."""
    from importlib.util import find_spec

    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


def package_version() -> str:
    from importlib.metadata import version

    return version("rapidocr")


def model_paths() -> tuple[Path, ...]:
    """The weights that are read, inside the installed package. Imports nothing of it."""
    from importlib.util import find_spec

    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.origin is not None
    return tuple(Path(spec.origin).parent / "models" / name for name in MODEL_FILES)


def read(image: Image.Image) -> tuple[Block, ...]:
    """The page's lines in reading order, grouped into paragraphs."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)[:, :, ::-1]  # it expects blue first
    found = _engine()(np.ascontiguousarray(pixels), use_cls=False)
    if found.boxes is None or found.txts is None:
        return ()
    lines = [
        _line(text, 100.0 * float(score), _upright(corners))
        for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
        if text.strip()
    ]
    return in_reading_order(lines)


@cache
def _engine() -> Any:
    # Read by onnxruntime at import. A worker has set the others; who else reads a page keeps theirs.
    os.environ["ORT_DISABLE_TELEMETRY"] = TELEMETRY_OFF["ORT_DISABLE_TELEMETRY"]
    from rapidocr import RapidOCR

    return RapidOCR(params=_SETTINGS)


def _upright(corners: Any) -> Box:
    points = np.asarray(corners)
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return int(left), int(top), int(right), int(bottom)


def _line(text: str, confidence: float, box: Box) -> Line:
    """Words share their line's confidence; their boxes divide its box by letters."""
    left, top, right, bottom = box
    step = (right - left) / len(text)
    words, at = [], 0
    for part in text.split():
        at = text.index(part, at)
        words.append(
            Word(
                part,
                confidence,
                (round(left + at * step), top, round(left + (at + len(part)) * step), bottom),
            )
        )
        at += len(part)
    return Line(tuple(words))
