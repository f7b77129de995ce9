"""Character error, pages a second and CPU seconds a page: Tesseract alone, RapidOCR alone, and the cascade.

    python bench/ocr.py [--scans FOLDER] [--json]

All three read the same pages in the same run, one thread, one page at a time. The pages are drawn here from
invented text in five languages and degraded as scanners, phones and fax machines do; with --scans, pictures
that have a ground truth (NAME.tif beside NAME.txt) are added. CPU counts the programs that were started too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from allod.engines.launch import TELEMETRY_OFF
from allod.engines.ocr import rapid, tesseract
from allod.engines.ocr.layout import render
from allod.engines.ocr.recognise import Settings, recognise

LANGUAGES = ("eng", "fra", "deu", "pol", "ell")
TEXTS = {
    "eng": "The committee met on the fourth of May to review the accounts of the harbour trust. It noted "
    "that repairs to the eastern quay had cost 48,250 pounds, somewhat less than the estimate, and thanked "
    "the engineer for her careful work. A second survey will follow in autumn, once the dredging has ended. "
    "Members asked whether the lighthouse could be opened to visitors on Sundays; the treasurer will report.",
    "fra": "Le conseil s'est réuni le quatre mai afin d'examiner les comptes de la régie du port. Il a "
    "constaté que la réfection du quai est avait coûté 48 250 euros, un peu moins que prévu, et a remercié "
    "l'ingénieure de son travail soigné. Une deuxième étude suivra à l'automne, dès que le dragage sera "
    "achevé. Où loger les élèves du collège voisin? La question a été renvoyée à la séance d'août.",
    "deu": "Der Ausschuss trat am vierten Mai zusammen, um die Rechnungen der Hafenverwaltung zu prüfen. Die "
    "Erneuerung des östlichen Kais kostete 48.250 Euro, etwas weniger als veranschlagt; man dankte der "
    "Ingenieurin für ihre gründliche Arbeit. Eine zweite Prüfung folgt im Herbst, sobald die Baggerarbeiten "
    "abgeschlossen sind. Über größere Öffnungszeiten des Leuchtturms wird später beschlossen.",
    "pol": "Komisja zebrała się czwartego maja, aby zbadać rachunki zarządu portu. Stwierdziła, że naprawa "
    "wschodniego nabrzeża kosztowała 48 250 złotych, nieco mniej niż przewidywano, i podziękowała pani "
    "inżynier za staranną pracę. Drugie badanie odbędzie się jesienią, gdy zakończy się pogłębianie dna. "
    "Członkowie pytali też, czy latarnię można otwierać dla zwiedzających w każdą niedzielę.",
    "ell": "Η επιτροπή συνεδρίασε στις τέσσερις Μαΐου για να εξετάσει τους λογαριασμούς του λιμένα. "
    "Διαπίστωσε ότι η επισκευή της ανατολικής προβλήτας κόστισε 48.250 ευρώ, λίγο λιγότερο από την εκτίμηση, και "  # noqa: E501
    "ευχαρίστησε τη μηχανικό για την προσεκτική εργασία της. Δεύτερη μελέτη θα ακολουθήσει το φθινόπωρο, "
    "μόλις τελειώσουν τα έργα. Τα μέλη ρώτησαν αν ο φάρος μπορεί να ανοίγει τις Κυριακές.",
}
FONTS = {"eng": "Serif", "fra": "Sans", "deu": "Serif", "pol": "Sans", "ell": "Sans"}
DPI = 200


class Page(msgspec.Struct, frozen=True):
    language: str
    condition: str
    path: Path
    truth: str


class Row(msgspec.Struct):
    reader: str
    pages: int = 0
    errors: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0


def drawn(text: str, family: str) -> tuple[Image.Image, str]:
    """The text set in paragraphs, twelve point, on the upper half of an A4 page."""
    font = ImageFont.truetype(f"Liberation{family}-Regular.ttf", 33)
    page = Image.new("L", (1654, 1400), 255)
    pen = ImageDraw.Draw(page)
    lines, line = [], ""
    for word in (text + " " + text).split():
        longer = f"{line} {word}".strip()
        if pen.textlength(longer, font) > 1300:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    for n, one in enumerate(lines):
        pen.text((170, 150 + 50 * n), one, fill=15, font=font)
    return page, "\n".join(lines)


def grain(page: Image.Image, deviation: float, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, deviation, (page.height, page.width))
    return Image.fromarray(np.clip(np.asarray(page, dtype=float) + noise, 0, 255).astype(np.uint8))


def scan(page: Image.Image) -> Image.Image:
    return grain(page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor=255), 10, 1)


def photo(page: Image.Image) -> Image.Image:
    """Four degrees askew, 124 dpi, lit from one side."""
    small = page.rotate(4, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    small = small.resize((small.width * 62 // 100, small.height * 62 // 100), Image.Resampling.LANCZOS)
    light = np.linspace(1.0, 0.45, small.width)[None, :] * np.linspace(1.0, 0.8, small.height)[:, None]
    lit = Image.fromarray((np.asarray(small, dtype=float) * light).astype(np.uint8))
    return grain(lit.filter(ImageFilter.GaussianBlur(0.6)), 5, 2)


def fax(page: Image.Image) -> Image.Image:
    """Half the resolution down the page, black and white, with specks."""
    coarse = page.resize((page.width, page.height // 2), Image.Resampling.BOX)
    back = grain(coarse.resize(page.size, Image.Resampling.BILINEAR), 25, 3)
    return back.point(lambda v: 255 * (v > 128))


CONDITIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean": lambda page: page,
    "scan": scan,
    "photo": photo,
    "fax": fax,
    "turned": lambda page: scan(page).rotate(180),
}


def rendered(folder: Path) -> list[Page]:
    pages = []
    for language, text in TEXTS.items():
        page, truth = drawn(text, FONTS[language])
        for condition, degrade in CONDITIONS.items():
            path = folder / f"{language}-{condition}.png"
            degrade(page).save(path, dpi=(DPI, DPI))
            pages.append(Page(language, condition, path, truth))
    return pages


def scanned(folder: Path) -> list[Page]:
    return [
        Page("mixed", "real scan", picture, truth.read_text())
        for picture in sorted(folder.glob("*.tif"))
        if (truth := picture.with_suffix(".txt")).is_file()
    ]


def distance(read: str, truth: str) -> float:
    """Character error rate after folding white space."""
    a, b = " ".join(read.split()), " ".join(truth.split())
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return min(1.0, row[-1] / len(b))


def by_tesseract(page: Page) -> str:
    with Image.open(page.path) as image:
        return render(tesseract.read(image, languages=LANGUAGES, dpi=DPI)).markdown


def by_rapidocr(page: Page) -> str:
    with Image.open(page.path) as image:
        return render(rapid.read(image)).markdown


def by_cascade(page: Page) -> str:
    kind = "tiff" if page.path.suffix == ".tif" else "png"
    return recognise(page.path, kind, 0, Settings(LANGUAGES, rapidocr=True)).markdown


READERS = {"Tesseract alone": by_tesseract, "RapidOCR alone": by_rapidocr, "allod": by_cascade}


def cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(pages: list[Page]) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    rapid.read(Image.new("RGB", (200, 60), "white"))  # its one-time loading belongs to no page
    by_condition: dict[str, dict[str, list[float]]] = {name: {} for name in READERS}
    rows = {name: Row(name) for name in READERS}
    for page in pages:
        for name, reader in READERS.items():
            wall, cpu = time.monotonic(), cpu_seconds()
            text = reader(page)
            row = rows[name]
            row.wall_s += time.monotonic() - wall
            row.cpu_s += cpu_seconds() - cpu
            error = distance(text, page.truth)
            row.pages, row.errors = row.pages + 1, row.errors + error
            by_condition[name].setdefault(page.condition, []).append(error)
            by_condition[name].setdefault(page.language, []).append(error)
    return list(rows.values()), by_condition


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    os.environ.update(TELEMETRY_OFF, OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as folder:
        pages = rendered(Path(folder)) + (scanned(options.scans) if options.scans else [])
        rows, by_condition = measure(pages)
    if options.json:
        print(json.dumps({"rows": msgspec.to_builtins(rows), "by_condition": by_condition}))
        return 0
    conditions = list(next(iter(by_condition.values())))
    print(f"{len(pages)} pages; character error in %, CPU in seconds a page\n")
    print(f"{'':16}{'all':>7}{'pages/s':>9}{'CPU':>7}" + "".join(f"{c:>10}" for c in conditions))
    for row in rows:
        errors = by_condition[row.reader]
        means = "".join(f"{100 * sum(errors[c]) / len(errors[c]):>10.2f}" for c in conditions)
        total = f"{100 * row.errors / row.pages:>7.2f}{row.pages / row.wall_s:>9.2f}"
        print(f"{row.reader:16}{total}{row.cpu_s / row.pages:>7.2f}{means}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
