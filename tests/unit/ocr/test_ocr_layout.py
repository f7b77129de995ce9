"""Reading order and Markdown, from boxes alone."""

from __future__ import annotations

import random

from allod.engines.ocr.layout import in_reading_order, render, with_titles
from allod.engines.ocr.tesseract import parse_tsv
from allod.engines.ocr.text import Block, Line, Word


def line(text: str, left: int, top: int, *, height: int = 20, confidence: float = 95) -> Line:
    words, at = [], left
    for word in text.split():
        words.append(Word(word, confidence, (at, top, at + 10 * len(word), top + height)))
        at += 10 * len(word) + 8
    return Line(tuple(words))


def markdown(lines: list[Line]) -> str:
    random.Random(3).shuffle(lines)
    return render(in_reading_order(lines)).markdown


def test_columns_are_read_one_after_the_other_under_a_headline() -> None:
    headline = line("A headline that runs across the whole sheet of paper here", 50, 0, height=20)
    left = [line(f"left text number {n} of ten", 50, 80 + 30 * n) for n in range(10)]
    right = [line(f"right text number {n} of ten", 450, 80 + 30 * n) for n in range(10)]
    read = markdown([headline, *left, *right])
    assert read.index("headline") < read.index("left text number 9") < read.index("right text number 0")
    assert [f"left text number {n}" in read for n in range(10)] == [True] * 10


def test_cells_of_one_row_stay_on_one_line() -> None:
    rows = [line("chairs", 50, 0), line("40,00", 400, 2), line("tables", 50, 30), line("60,00", 400, 28)]
    assert markdown(rows) == "chairs 40,00\ntables 60,00"


def test_a_gap_parts_paragraphs() -> None:
    assert markdown([line("one", 0, 0), line("two", 0, 25), line("three", 0, 90)]) == "one\ntwo\n\nthree"


def test_every_line_comes_out_exactly_once_wherever_it_stands() -> None:
    dice = random.Random(11)
    for _ in range(30):
        lines = [line(f"w{n}", dice.randrange(2000), dice.randrange(2000)) for n in range(60)]
        read = render(in_reading_order(lines)).markdown.split()
        assert sorted(read) == sorted(f"w{n}" for n in range(60))


def test_each_word_is_found_where_the_answer_says() -> None:
    blocks = with_titles(
        [Block((line("Big Title", 0, 0, height=60),))]
        + [Block((line(f"# not a heading {n}", 0, 100 + 30 * n),)) for n in range(6)]
    )
    page = render(blocks)
    assert page.markdown.startswith("# Big Title\n\n\\# not a heading 0")
    for placed in page.words:
        assert page.markdown.startswith(placed.word.text, placed.start)


def test_a_doubtful_or_long_large_line_is_no_title() -> None:
    body = [Block((line(f"text of the body {n}", 0, 100 + 30 * n),)) for n in range(6)]
    doubtful = Block((line("Smudge", 0, 0, height=60, confidence=60),))
    number = Block((line("1234 5678", 0, 0, height=60),))
    assert not any(block.title for block in with_titles([doubtful, number, *body]))


def test_tesseracts_table_keeps_quotes_and_paragraphs() -> None:
    head = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
    rows = (
        "4\t1\t1\t1\t1\t0\t0\t0\t99\t9\t-1\t\n"
        '5\t1\t1\t1\t1\t1\t1\t2\t30\t10\t96.5\t"quoted\n'
        "5\t1\t1\t1\t1\t2\t40\t2\t30\t10\t90\tword\n"
        "5\t1\t1\t1\t2\t1\t1\t20\t30\t10\t95\t \n"
        "5\t1\t1\t2\t1\t1\t1\t40\t30\t10\t91\tnext\n"
    )
    blocks = parse_tsv(head + rows)
    assert [block.text for block in blocks] == ['"quoted word', "next"]
    assert blocks[0].box == (1, 2, 70, 12)
