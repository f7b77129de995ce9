"""What is read: real scans against their ground truth, turned pages, the specimen, born-digital pages."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError
from ocr_replica import SCANS, Replica, character_error_rate, folded, needs_scans, png, running
from pages import text_pages
from PIL import Image

from allod.engines.specimen import write_specimen


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with running(tmp_path_factory.mktemp("ocr") / "s.sock", "--languages=eng,fra,deu,spa,ita,por") as started:
        yield started


@pytest.fixture
def sdk(replica: Replica) -> Iterator[Mistral]:
    transport = httpx2.HTTPTransport(uds=str(replica.socket))
    with httpx2.Client(transport=transport, timeout=240) as client:
        yield Mistral(api_key="unused", server_url="http://replica", client=client)


@needs_scans
@pytest.mark.parametrize(("name", "at_most"), [("eurotext", 0.05), ("phototest", 0.01)])
def test_scans_are_read_as_their_ground_truth_says(replica: Replica, name: str, at_most: float) -> None:
    truth = (SCANS / f"{name}.txt").read_text()
    assert character_error_rate(replica.markdown((SCANS / f"{name}.tif").read_bytes()), truth) <= at_most


@needs_scans
@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_page_is_turned_back(replica: Replica, turned: int) -> None:
    truth = (SCANS / "phototest.txt").read_text()
    with Image.open(SCANS / "phototest.tif") as image:
        answer = replica.ocr(png(image.rotate(turned, expand=True))).json()["pages"][0]
    assert (
        answer["allod"]["rotation"] == turned
    )  # Pillow turns counter-clockwise, the answer counts clockwise
    assert (answer["dimensions"]["width"], answer["dimensions"]["height"]) == (640, 480)
    assert character_error_rate(answer["markdown"], truth) <= 0.02


@needs_scans
def test_only_the_selected_pages_of_a_scanned_book_are_read(replica: Replica) -> None:
    answer = replica.ocr((SCANS / "multipage.pdf").read_bytes(), pages="0,4-5").json()
    assert [page["index"] for page in answer["pages"]] == [0, 4, 5]
    assert answer["usage_info"]["pages_processed"] == 3
    assert "widow's garden, stooping down" in folded(answer["pages"][0]["markdown"])
    assert "It was the year of Our Lord" in folded(answer["pages"][2]["markdown"])


def test_the_unmodified_sdk_reads_the_specimen(sdk: Mistral, tmp_path: Path) -> None:
    truth = write_specimen(tmp_path / "specimen.pdf")
    content = base64.b64encode((tmp_path / "specimen.pdf").read_bytes()).decode()
    answer = sdk.ocr.process(
        model="allod-ocr",
        document={"type": "document_url", "document_url": "data:application/pdf;base64," + content},
        confidence_scores_granularity="word",
    )
    (page,) = answer.pages
    assert character_error_rate(page.markdown, truth) <= 0.015
    assert answer.usage_info.pages_processed == 1
    assert page.dimensions is not None
    assert (page.dimensions.dpi, page.dimensions.width) == (200, pytest.approx(1654, abs=1))
    scores = page.confidence_scores
    assert scores is not None
    assert scores.word_confidence_scores
    assert 0.9 < scores.average_page_confidence_score <= 1
    for word in scores.word_confidence_scores:  # each score points at its word
        assert page.markdown[word.start_index :].startswith(word.text)
    assert page.blocks
    assert any("Klappstühle" in block.content for block in page.blocks)


def test_the_sdk_is_told_which_field_is_not_supported(sdk: Mistral) -> None:
    image = {"type": "image_url", "image_url": "data:image/png;base64,AA=="}
    with pytest.raises(HTTPValidationError) as refused:
        sdk.ocr.process(model="allod-ocr", document=image, table_format="html")
    assert refused.value.data.detail is not None
    assert refused.value.data.detail[0].loc == ["body", "table_format"]
    with pytest.raises(SDKError, match="type-unsupported"):
        sdk.ocr.process(model="allod-ocr", document=image)


def test_a_born_digital_page_is_not_recognised_but_read(replica: Replica) -> None:
    document = text_pages("Größe: 12 m²\nÀ l'attention de Madame Émilie Dœuf,\nseconde ligne du texte.")
    answer = replica.ocr(document, confidence_scores_granularity="block").json()["pages"][0]
    assert answer["allod"]["engine"] == "born-digital"
    assert answer["markdown"].startswith("Größe: 12 m²\nÀ l'attention de Madame Émilie Dœuf,")
    (block,) = answer["blocks"]
    assert 295 <= block["top_left_x"] <= 305  # 72 pt at 300 dpi
    assert block["top_left_y"] == pytest.approx((842 - 760 - 9) * 300 / 72, abs=15)


def test_every_page_of_a_tiff_is_read_in_order(replica: Replica, tmp_path: Path) -> None:
    write_specimen(tmp_path / "specimen.pdf")
    import pypdfium2

    with pypdfium2.PdfDocument(tmp_path / "specimen.pdf") as document:
        page = document[0].render(scale=200 / 72).to_pil().convert("L")
    top, bottom = page.crop((0, 0, 1654, 830)), page.crop((0, 1180, 1654, 1800))
    out = io.BytesIO()
    top.save(out, "TIFF", save_all=True, append_images=[bottom], dpi=(200, 200))
    pages = replica.ocr(out.getvalue()).json()["pages"]
    assert [p["index"] for p in pages] == [0, 1]
    assert "Weißdorn" in pages[0]["markdown"]
    assert "Payment is due" in pages[1]["markdown"]


def test_two_requests_at_once_get_their_own_answers(replica: Replica) -> None:
    documents = [
        text_pages(*(f"Document {n}, page {p} of its own text" for p in range(20))) for n in range(6)
    ]
    answers: dict[int, str] = {}

    def read(n: int) -> None:
        answers[n] = replica.markdown(documents[n])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        expected = [f"Document {n}, page {p} of its own text" for p in range(20)]
        assert answers[n].split("\n\n") == expected
