"""Which engine reads a page next, and whose reading is kept. Pure: numbers in, a decision out.

Tesseract reads every page. Where it is unsure, the page is prepared (flattened, deskewed, enlarged) and
read again; where it is still unsure and RapidOCR's weights know the script, RapidOCR reads it.
The thresholds come from rendered pages and receipts; `bench/ocr.py` re-measures what they cost and give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from allod.engines.ocr.text import Reading

SURE = 91.0  # mean word confidence; pages read well score 93 to 95, pages with a fifth lost up to 90.7
RAPIDOCR_PLAUSIBLE = 90.0  # a script that its weights do not know (Greek) scores 76 to 85, a known one 98
RAPIDOCR_SCRIPTS = frozenset({"Latin", ""})  # "" is unknown: the plausibility bound then decides
DOUBTFUL = 75.0  # upside-down or foreign text is read with less; the other orientation is then tried

Step = Literal["accept", "prepare", "rapidocr"]


def next_step(tried: Sequence[Reading], *, script: str, rapidocr: bool) -> Step:
    """What to do after these attempts (at least one), in the order they were made."""
    last = tried[-1]
    if last.engine == "tesseract":
        return "accept" if last.confidence >= SURE else "prepare"
    unsure = max(r.confidence for r in tried) < SURE
    if last.engine == "tesseract+prep" and unsure and rapidocr and script in RAPIDOCR_SCRIPTS:
        return "rapidocr"
    return "accept"


def best(tried: Sequence[Reading]) -> Reading:
    """The reading to keep. RapidOCR was asked because the others were unsure: it wins where it is plausible.

    Between Tesseract's own readings the one with more surely read characters wins, so that a few lucky words
    do not beat a whole page.
    """
    last = tried[-1]
    if last.engine == "rapidocr" and last.confidence >= RAPIDOCR_PLAUSIBLE:
        return last
    return max((r for r in tried if r.engine != "rapidocr"), key=lambda r: r.surely_read)
