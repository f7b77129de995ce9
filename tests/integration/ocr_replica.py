"""A real OCR replica on a Unix socket, and documents made for it. Imported by the OCR tests."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCANS = ROOT.parent / "shared" / "data" / "scans"
needs_scans = pytest.mark.skipif(not SCANS.is_dir(), reason=f"no scans at {SCANS.relative_to(ROOT.parent)}")


class Replica:
    def __init__(self, socket: Path, process: subprocess.Popen[bytes]) -> None:
        self.socket = socket
        self.process = process
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://replica", timeout=240
        )

    def ocr(self, content: bytes, **asked: Any) -> httpx.Response:
        url = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
        return self.ask({"type": "document_url", "document_url": url}, **asked)

    def ask(self, document: Any, **asked: Any) -> httpx.Response:
        return self.http.post("/v1/ocr", json={"model": "allod-ocr", "document": document, **asked})

    def markdown(self, content: bytes, **asked: Any) -> str:
        answer = self.ocr(content, **asked)
        assert answer.status_code == 200, answer.text
        return "\n\n".join(page["markdown"] for page in answer.json()["pages"])

    def in_flight(self) -> int:
        return int(self.http.get("/health").json()["in_flight"])


@contextmanager
def running(socket: Path, *options: str) -> Iterator[Replica]:
    arguments = [sys.executable, "-m", "allod.engines.ocr", f"--socket={socket}", *options]
    process = subprocess.Popen(arguments, env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"})
    replica = Replica(socket, process)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert replica.http.get("/health").status_code == 200
                break
            except httpx.TransportError:
                assert process.poll() is None, "the replica ended"
                assert time.monotonic() < deadline, "the replica did not become ready"
                time.sleep(0.05)
        yield replica
    finally:
        process.terminate()
        process.wait(20)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def folded(text: str) -> str:
    """White space and quotation marks folded, Markdown's marks gone: what the ground truth is compared in."""
    text = re.sub(r"(?m)^#+ |\\(?=#)", "", text)
    text = re.sub("[“”„«»]|''|,,", '"', text)
    text = re.sub("[‘’`´]", "'", text)
    return " ".join(text.split())


def character_error_rate(read: str, truth: str) -> float:
    """Edits (insert, delete, replace) to get from what was read to the truth, by the truth's length."""
    a, b = folded(read), folded(truth)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1] / max(len(b), 1)
