"""The decision which engine reads next, over numbers only."""

from __future__ import annotations

import pytest

from allod.engines.ocr.cascade import best, next_step
from allod.engines.ocr.text import Block, Engine, Line, Reading, Word


def reading(engine: Engine, confidence: float, words: int = 20) -> Reading:
    line = Line(tuple(Word("word", confidence, (0, 0, 10, 10)) for _ in range(words)))
    return Reading(engine, (Block((line,)),) if words else ())


def test_a_sure_page_is_read_once() -> None:
    assert next_step([reading("tesseract", 95)], script="Latin", rapidocr=True) == "accept"


def test_an_unsure_page_is_prepared_first() -> None:
    assert next_step([reading("tesseract", 80)], script="Latin", rapidocr=True) == "prepare"


def test_an_empty_reading_counts_as_unsure() -> None:
    assert next_step([reading("tesseract", 0, words=0)], script="", rapidocr=True) == "prepare"


@pytest.mark.parametrize(
    ("script", "allowed", "expected"),
    [
        ("Latin", True, "rapidocr"),
        ("", True, "rapidocr"),
        ("Greek", True, "accept"),  # its weights do not know Greek
        ("Cyrillic", True, "accept"),
        ("Latin", False, "accept"),  # the one setting that turns it off
    ],
)
def test_rapidocr_is_asked_only_where_it_can_help(script: str, allowed: bool, expected: str) -> None:
    tried = [reading("tesseract", 70), reading("tesseract+prep", 75)]
    assert next_step(tried, script=script, rapidocr=allowed) == expected


def test_preparing_that_helped_ends_it() -> None:
    tried = [reading("tesseract", 70), reading("tesseract+prep", 93)]
    assert next_step(tried, script="Latin", rapidocr=True) == "accept"
    assert best(tried).engine == "tesseract+prep"


def test_a_few_lucky_words_do_not_beat_a_whole_page() -> None:
    tried = [reading("tesseract", 90, words=3), reading("tesseract+prep", 82, words=200)]
    assert best(tried).engine == "tesseract+prep"


def test_rapidocr_is_kept_where_plausible_and_dropped_where_it_does_not_know_the_script() -> None:
    unsure = [reading("tesseract", 70), reading("tesseract+prep", 75)]
    assert best([*unsure, reading("rapidocr", 98)]).engine == "rapidocr"
    assert best([*unsure, reading("rapidocr", 80)]).engine == "tesseract+prep"


def test_nothing_read_by_anyone_is_still_an_answer() -> None:
    nothing = [reading(engine, 0, words=0) for engine in ("tesseract", "tesseract+prep", "rapidocr")]
    assert best(nothing).blocks == ()
