"""The document inside a request: its bytes from a data URL, and what they are by their first bytes.

What the sender says the type is, is ignored. Nothing is fetched: this engine has no network.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from allod.engines.ocr.pages import Kind
from allod.engines.ocr.shape import DocumentUrlChunk, FileChunk, ImageUrl, ImageUrlChunk
from allod.errors import AllodError, TooLarge, Usage
from allod.limits import DOCUMENT_BYTES_MAX, MIB

_DATA_URL = re.compile(r"data:[^,]{0,255}?;base64,", re.IGNORECASE)
_PDF_HEADER_WITHIN = 1024  # bytes; PDF readers accept junk before the header, and scanners write it
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"PK\x03\x04", "a ZIP container (DOCX, XLSX, ODT...)"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"{\\rtf", "RTF"),
    (b"<", "HTML or XML"),
)


class UnsupportedTypeError(AllodError):
    exit_code = 2
    status = 415


class Document(msgspec.Struct, frozen=True):
    content: bytes
    kind: Kind


def extract(chunk: DocumentUrlChunk | ImageUrlChunk | FileChunk) -> Document:
    """The bytes and their type. Raises Usage, TooLarge or UnsupportedTypeError, each case by its code."""
    if isinstance(chunk, FileChunk):
        raise Usage(
            "document.file-unsupported",
            "files by id are not kept by this engine",
            hint="send the document as a data URL in document_url",
            param="document.file_id",
        )
    if isinstance(chunk, DocumentUrlChunk):
        url, param = chunk.document_url, "document.document_url"
    else:
        url = chunk.image_url.url if isinstance(chunk.image_url, ImageUrl) else chunk.image_url
        param = "document.image_url"
    content = _decoded(url, param)
    if not content:
        raise Usage("document.empty", "the document is empty", param=param)
    if len(content) > DOCUMENT_BYTES_MAX:
        raise TooLarge(
            "document.too-large",
            f"the document has {len(content) / MIB:.0f} MiB; at most {DOCUMENT_BYTES_MAX // MIB} are read",
            param=param,
        )
    return Document(content, sniff(content, param))


def _decoded(url: str, param: str) -> bytes:
    if re.match(r"(?i)https?://", url):
        raise Usage(
            "document.url-refused",
            "this engine has no network and fetches nothing",
            hint="send the document itself: data:application/pdf;base64,...",
            param=param,
        )
    head = _DATA_URL.match(url)
    if head is None:
        raise Usage(
            "document.data-url-invalid",
            "expected a data URL in base64",
            hint="data:application/pdf;base64,...",
            param=param,
        )
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as e:
        raise Usage("document.base64-invalid", "the data URL is not valid base64", param=param) from e


def sniff(content: bytes, param: str) -> Kind:
    """The type by its signature. Raises UnsupportedTypeError, naming what it seems to be."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    if content.startswith(b"BM"):
        return "bmp"
    if b"%PDF-" in content[:_PDF_HEADER_WITHIN]:
        return "pdf"
    seems = next((name for mark, name in _OTHERS if content.lstrip()[: len(mark)] == mark), "unknown")
    raise UnsupportedTypeError(
        "document.type-unsupported",
        f"the document's type is {seems}; read are PDF, PNG, JPEG, TIFF, WebP and BMP",
        param=param,
    )
