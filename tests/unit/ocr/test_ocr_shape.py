"""Which pages a selection means, and what a request may not ask."""

from __future__ import annotations

import base64

import pytest

from allod.engines.ocr.document import extract
from allod.engines.ocr.shape import DocumentUrlChunk, Invalid, parse, refusal, selected
from allod.errors import TooLarge
from allod.limits import DOCUMENT_BYTES_MAX


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (None, (0, 1, 2, 3, 4)),
        ("0,2-4", (0, 2, 3, 4)),
        (" 4 , 1 - 2 ", (4, 1, 2)),
        ([3, 3, 0], (3, 0)),
    ],
)
def test_a_selection_names_each_page_once_in_the_order_asked(
    pages: str | list[int] | None, expected: tuple[int, ...]
) -> None:
    assert selected(pages, 5, at_most=10) == expected


@pytest.mark.parametrize("pages", ["", ",", "1-", "0..2", "5", [5], [-1], [], "4-2", "0-999999", "1,,2", "٣"])
def test_a_selection_that_means_nothing_is_refused(pages: str | list[int]) -> None:
    with pytest.raises(Invalid) as refused:
        selected(pages, 5, at_most=10)
    assert refused.value.loc == ("body", "pages")


def test_a_selection_is_bounded() -> None:
    with pytest.raises(Invalid, match="at most 100"):
        selected("0-9999", 10_000, at_most=100)


def test_a_misspelt_field_is_named_not_ignored() -> None:
    with pytest.raises(Invalid, match="tabel_format"):
        parse(b'{"document": {"type": "file", "file_id": "x"}, "tabel_format": "html"}')


def test_the_junk_a_scanner_writes_before_the_pdf_header_is_accepted() -> None:
    url = "data:;base64," + base64.b64encode(b"\r\n@PJL\r\n%PDF-1.4\n").decode()
    assert extract(DocumentUrlChunk(url)).kind == "pdf"


def test_a_document_over_the_bound_is_refused_by_size() -> None:
    url = "data:application/pdf;base64," + base64.b64encode(bytes(DOCUMENT_BYTES_MAX + 1)).decode()
    with pytest.raises(TooLarge) as refused:
        extract(DocumentUrlChunk(url))
    assert refusal(refused.value)["code"] == "document.too-large"
