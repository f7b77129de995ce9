"""Hostile and broken documents: each is a clear 4xx of its own, and the replica goes on answering."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ocr_replica import Replica, png, running
from pages import pdf, stream, text_pages
from PIL import Image

from allod.engines.specimen import write_specimen

HONEST = text_pages("An honest page with enough text on it to be read as it is.")


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with running(tmp_path_factory.mktemp("ocr") / "s.sock", "--languages=eng", "--workers=2") as started:
        yield started


@pytest.fixture(autouse=True)
def _answers_afterwards(replica: Replica) -> Iterator[None]:
    yield
    assert "An honest page" in replica.markdown(HONEST)


def png_bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(bytes(1 << 20), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def page_with(contents: bytes, resources: bytes, *more: bytes, media: bytes = b"[0 0 595 842]") -> bytes:
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox %b /Contents 4 0 R /Resources << %b >> >>"
        % (media, resources),
        contents,
        *more,
    )


def encrypted_pdf() -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [] /Count 0 >>",
        b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b> >>" % (b"11" * 32, b"22" * 32),
    ]
    return pdf(*objects, trailer=b"/Encrypt 3 0 R /ID [<00> <00>]")


def picture_bomb() -> bytes:
    picture = stream(
        zlib.compress(bytes(1 << 16)),
        b"/Type /XObject /Subtype /Image /Width 35000 /Height 35000 /BitsPerComponent 8 "
        b"/ColorSpace /DeviceRGB /Filter /FlateDecode",
    )
    return page_with(stream(b"q 595 0 0 842 0 0 cm /I Do Q"), b"/XObject << /I 5 0 R >>", picture)


def endless_stream() -> bytes:
    """A content stream that unpacks to gigabytes: one compressed piece, many times, compressed again."""
    packer = zlib.compressobj(9)
    piece = packer.compress(b"q Q " * (1 << 18)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = piece[2:]  # without the zlib header, and independent of what came before
    once = piece + rest * 4096 + packer.flush()
    return page_with(stream(zlib.compress(once, 9), b"/Filter [/FlateDecode /FlateDecode]"), b"")


def many_pages(count: int) -> bytes:
    return text_pages(*(f"This is page {n} of a document that is very long." for n in range(count)))


CASES = {
    "empty": (b"", 400, "document.empty"),
    "docx": (b"PK\x03\x04" + bytes(200), 415, "document.type-unsupported"),
    "html": (b"<!doctype html><p>hello", 415, "document.type-unsupported"),
    "noise": (random.Random(1).randbytes(5000), 415, "document.type-unsupported"),
    "png header only": (b"\x89PNG\r\n\x1a\n", 400, "document.damaged"),
    "png cut short": (png(Image.effect_noise((400, 400), 50))[:9000], 400, "document.damaged"),
    "image bomb": (png_bomb(35_000, 35_000), 413, "document.page-too-large"),
    "pdf header only": (b"%PDF-1.7\n", 400, "document.damaged"),
    "pdf cut short": (HONEST[:200], 400, "document.damaged"),
    "encrypted pdf": (encrypted_pdf(), 400, "document.encrypted"),
    "picture bomb in a pdf": (picture_bomb(), 413, "document.page-too-large"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_bad_document_has_its_own_answer(replica: Replica, case: str) -> None:
    content, status, code = CASES[case]
    started = time.monotonic()
    answer = replica.ocr(content)
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert set(answer.json()) == {"object", "message", "type", "param", "code"}
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"type": "document_url", "document_url": "https://example.org/a.pdf"}, 400, "document.url-refused"),
        ({"type": "image_url", "image_url": {"url": "http://[::1]/a.png"}}, 400, "document.url-refused"),
        ({"type": "document_url", "document_url": "file:///etc/passwd"}, 400, "document.data-url-invalid"),
        ({"type": "image_url", "image_url": "data:image/png;base64,@@@@"}, 400, "document.base64-invalid"),
        ({"type": "file", "file_id": "0b6c"}, 400, "document.file-unsupported"),
    ],
)
def test_nothing_is_fetched_or_guessed(replica: Replica, document: object, status: int, code: str) -> None:
    answer = replica.ask(document)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"document_annotation_format": {"type": "json_schema"}}, "document_annotation_format"),
        ({"bbox_annotation_format": {"type": "json_schema"}}, "bbox_annotation_format"),
        ({"extract_header": True}, "extract_header"),
        ({"include_image_base64": True}, "include_image_base64"),
        ({"pages": "0,x"}, "pages"),
        ({"pages": [1]}, "pages"),
        ({"pages": [-1]}, "pages"),
        ({"pages": "3-1"}, "pages"),
        ({"confidence_scores_granularity": "letter"}, "confidence_scores_granularity"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    replica: Replica, asked: dict[str, object], field: str
) -> None:
    answer = replica.ocr(HONEST, **asked)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"document": 1}', b'{"documnet": {}}'])
def test_a_body_that_is_no_request(replica: Replica, body: bytes) -> None:
    answer = replica.http.post("/v1/ocr", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_ten_thousand_pages_are_refused_at_once_but_one_of_them_is_read(replica: Replica) -> None:
    document = many_pages(10_000)
    started = time.monotonic()
    refused = replica.ocr(document)
    assert (refused.status_code, refused.json()["code"]) == (413, "document.too-many-pages")
    assert replica.markdown(document, pages=[9_999]) == "This is page 9999 of a document that is very long."
    assert time.monotonic() - started < 10


def test_an_endless_stream_is_its_pages_error(replica: Replica) -> None:
    answer = replica.ocr(endless_stream())
    # PDFium may also give up on the stream by itself and show an empty page: then that is what is read.
    assert answer.status_code in {200, 400, 413, 422}, answer.text
    if answer.status_code == 200:
        assert answer.json()["pages"][0]["markdown"] == ""


def test_a_poisonous_page_does_not_take_its_neighbours(replica: Replica, tmp_path: Path) -> None:
    frames = [Image.new("L", (10, 10), 255), Image.new("1", (9_000, 9_000), 1)]
    frames[0].save(tmp_path / "two.tiff", save_all=True, append_images=frames[1:], compression="tiff_deflate")
    answer = replica.ocr((tmp_path / "two.tiff").read_bytes())
    assert answer.status_code == 200
    first, second = answer.json()["pages"]
    assert "error" not in first["allod"]
    assert second["allod"]["error"]["code"] == "document.page-too-large"
    assert answer.json()["usage_info"]["pages_processed"] == 1


def test_damaged_bytes_anywhere_never_end_the_replica(replica: Replica) -> None:
    dice = random.Random(7)
    good = [text_pages("Seven pages of text", "and one more page"), png(Image.new("L", (60, 40), 255))]
    for _ in range(60):
        content = bytearray(dice.choice(good))
        for _ in range(dice.randrange(1, 30)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        answer = replica.ocr(bytes(content))
        assert answer.status_code in {200, 400, 413, 415, 422}, answer.text
        json.loads(answer.content)


def test_a_worker_killed_over_a_page_is_that_pages_error(replica: Replica, tmp_path: Path) -> None:
    write_specimen(tmp_path / "specimen.pdf")
    for _ in range(3):
        answer: list[int] = []
        sender = _send(replica.socket, (tmp_path / "specimen.pdf").read_bytes())
        victim = _busy_worker(replica)
        os.kill(victim, signal.SIGKILL)
        answer.append(int(sender.recv(65_536).split()[1]))
        sender.close()
        assert answer == [422]


def test_a_client_that_leaves_stops_its_pages(replica: Replica, tmp_path: Path) -> None:
    write_specimen(tmp_path / "specimen.pdf")
    sender = _send(replica.socket, (tmp_path / "specimen.pdf").read_bytes())
    _busy_worker(replica)
    sender.close()
    deadline = time.monotonic() + 5
    while replica.in_flight() or _tesseracts(replica):
        assert time.monotonic() < deadline, "the page is still being read"
        time.sleep(0.05)


def _send(path: Path, content: bytes) -> socket.socket:
    import base64

    url = "data:application/pdf;base64," + base64.b64encode(content).decode()
    body = json.dumps({"model": None, "document": {"type": "document_url", "document_url": url}}).encode()
    sender = socket.socket(socket.AF_UNIX)
    sender.settimeout(60)
    sender.connect(str(path))
    head = b"POST /v1/ocr HTTP/1.1\r\nhost: replica\r\ncontent-length: %d\r\n\r\n" % len(body)
    sender.sendall(head + body)
    return sender


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _tesseracts(replica: Replica) -> list[tuple[int, int]]:
    """(worker, tesseract) pairs that run now."""
    pairs = []
    for worker in _children(replica.process.pid):
        try:
            pairs += [(worker, child) for child in _children(worker)]
        except OSError:
            continue
    return pairs


def _busy_worker(replica: Replica) -> int:
    deadline = time.monotonic() + 30
    while not (pairs := _tesseracts(replica)):
        assert time.monotonic() < deadline, "no worker became busy"
        time.sleep(0.005)
    return pairs[0][0]
