"""Machine-readable zones of specimen documents: Tesseract alone, RapidOCR alone, and the OCR engine.

    python bench/mrz.py [--persons N] [--json]

All read the same pictures in the same run: passport pages and cards of invented persons in five conditions.
Of each reader: the number of documents whose data lines (TD3 line 2, TD1 lines 1 and 2) came out exactly, as
read and after finding and repair; how many were refused or had no zone; and fields that are wrong and look
right (valid or repaired), those of names apart, which no check digit covers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from allod.clock import SystemClock
from allod.engines.launch import TELEMETRY_OFF
from allod.engines.ocr import rapid
from allod.engines.ocr.layout import render
from allod.engines.ocr.recognise import Settings, recognise
from allod.errors import Unprocessable
from allod.kyc import mrz
from allod.kyc.mrz_find import find
from allod.kyc.specimen import DPI, Form, invented, picture, zone
from allod.kyc.specimen_wear import WEAR, worn

FORMS: tuple[Form, ...] = ("TD3", "TD1")
DATA_LINES = {"TD3": (1,), "TD1": (0, 1)}
NAMES = ("surname", "given_names")


class Document(msgspec.Struct, frozen=True):
    form: Form
    seed: int
    path: Path


class Row(msgspec.Struct):
    reader: str
    condition: str
    documents: int = 0
    exact_as_read: int = 0
    exact_repaired: int = 0
    no_zone: int = 0
    refused: int = 0
    wrong_looking_right: int = 0
    wrong_names_looking_right: int = 0
    cpu_s: float = 0.0


def by_tesseract(path: Path) -> str:
    command = ["tesseract", str(path), "-", "-l", "eng", "--psm", "6", "--dpi", str(DPI)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_THREAD_LIMIT": "1"}
    )
    return done.stdout


def by_rapidocr(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return render(rapid.read(image)).markdown


def by_engine(path: Path) -> str:
    return recognise(path, "png", 0, Settings(("eng",), rapidocr=True)).markdown


READERS: dict[str, Callable[[Path], str]] = {
    "Tesseract alone": by_tesseract,
    "RapidOCR alone": by_rapidocr,
    "OCR engine": by_engine,
}


def measure(row: Row, document: Document, read: Callable[[Path], str]) -> None:
    lines = zone(invented(document.seed), document.form)
    data = [lines[n] for n in DATA_LINES[document.form]]
    row.documents += 1
    before = _cpu()
    try:
        text = read(document.path)
    except Unprocessable:
        row.refused += 1
        return
    finally:
        row.cpu_s += _cpu() - before
    rows = {"".join(one.split()) for one in text.splitlines()}
    row.exact_as_read += all(one in rows for one in data)
    found = find(text, SystemClock())
    if found is None:
        row.no_zone += 1
        return
    row.exact_repaired += [found.lines[n] for n in DATA_LINES[document.form] if n < len(found.lines)] == data
    true = {f.name: f.value for f in mrz.read(lines, SystemClock()).fields}
    wrong = [
        f.name for f in found.fields if f.status in ("valid", "repaired") and f.value != true.get(f.name, "")
    ]
    row.wrong_looking_right += sum(name not in NAMES for name in wrong)
    row.wrong_names_looking_right += sum(name in NAMES for name in wrong)


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--persons", type=int, default=4, help="persons per form and condition (4)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.update(TELEMETRY_OFF)
    started = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for condition, wear in WEAR.items():
            documents = []
            for form in FORMS:
                for seed in range(100, 100 + args.persons):
                    path = Path(folder, f"{form}-{seed}-{condition}.png")
                    worn(picture(invented(seed), form), wear, seed).save(path, dpi=(DPI, DPI))
                    documents.append(Document(form, seed, path))
            for reader, read in READERS.items():
                row = Row(reader, condition)
                for document in documents:
                    measure(row, document, read)
                rows.append(row)
                print(f"{time.monotonic() - started:6.1f} s  {reader}, {condition}", file=sys.stderr)
    if args.json:
        print(json.dumps(msgspec.to_builtins(rows), indent=2))
        return 0
    head = ("reader", "condition", "documents", "exact as read", "exact repaired", "no zone", "refused")
    head += ("wrong, looks right", "of these names", "CPU s each")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for r in rows:
        wrong = r.wrong_looking_right + r.wrong_names_looking_right
        counts = (r.documents, r.exact_as_read, r.exact_repaired, r.no_zone, r.refused, wrong)
        cells = (r.reader, r.condition, *counts, r.wrong_names_looking_right, f"{r.cpu_s / r.documents:.2f}")
        print("| " + " | ".join(map(str, cells)) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
