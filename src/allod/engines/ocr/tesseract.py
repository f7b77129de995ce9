"""Tesseract 5 as a program: one thread, images through its standard input, bounded CPU and wall time.

A program rather than a binding, so that a crash in it is an exit status and its bounds are the kernel's.
"""

from __future__ import annotations

import csv
import io
import re
import resource
import shutil
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Literal

import msgspec
from PIL import Image

from allod.engines.ocr.text import Block, Line, Word
from allod.errors import AllodError, NotReady, Usage
from allod.limits import PAGE_CPU_SECONDS_MAX, PAGE_WALL_SECONDS_MAX

ENVIRONMENT = {"OMP_THREAD_LIMIT": "1", "LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"}
SCRIPT_OF = {  # Tesseract names scripts in OSD and languages in packs; what is not here is Latin
    **dict.fromkeys(("bul", "mkd", "rus", "srp", "ukr", "bel"), "Cyrillic"),
    **dict.fromkeys(("ell", "grc"), "Greek"),
    **dict.fromkeys(("heb", "yid"), "Hebrew"),
    **dict.fromkeys(("ara", "fas", "urd"), "Arabic"),
    **dict.fromkeys(("jpn", "jpn_vert"), "Japanese"),
    **dict.fromkeys(("chi_sim", "chi_tra"), "Han"),
    "kor": "Korean",
    "kat": "Georgian",
    "hye": "Armenian",
}
_ALSO_LATIN = "Fraktur"  # OSD tells it apart; its languages are those of Latin
_NOT_LANGUAGES = frozenset({"osd", "equ"})
_FIELD = re.compile(r"^([A-Za-z ]+): (.+)$", re.MULTILINE)
_WORD_LEVEL = "5"


class Orientation(msgspec.Struct, frozen=True):
    """What OSD saw. `rotate` is clockwise degrees that bring the page upright; script "" is unknown."""

    rotate: Literal[0, 90, 180, 270] = 0
    rotate_confidence: float = 0.0
    script: str = ""
    script_confidence: float = 0.0


def binary() -> Path:
    """Where the program is. Raises NotReady where it is not installed."""
    found = shutil.which("tesseract", path=ENVIRONMENT["PATH"])
    if found is None:
        raise NotReady(
            "ocr.tesseract-missing",
            "the program tesseract is not installed",
            hint="apt-get install tesseract-ocr tesseract-ocr-osd",
        )
    return Path(found)


def version() -> str:
    """As in `tesseract 5.3.0`."""
    done = subprocess.run(
        [binary(), "--version"], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    return done.stdout.splitlines()[0].strip()


def installed() -> tuple[Path, frozenset[str]]:
    """The folder of the language packs, and the packs in it (`osd` among them)."""
    done = subprocess.run(
        [binary(), "--list-langs"], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    head, *packs = done.stdout.splitlines()
    folder = re.search(r'"([^"]+)"', head)
    if folder is None:
        raise NotReady("ocr.tessdata-unknown", f"tesseract does not say where its data is: {head!r}")
    return Path(folder.group(1)), frozenset(p.strip() for p in packs if p.strip())


def check_languages(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """These languages if each is installed; every installed one where none is named.

    Raises Usage naming the packages to install: a page read with the wrong pack is worse than one not read.
    """
    _, packs = installed()
    missing = [w for w in (*wanted, "osd") if w not in packs]
    if missing:
        known = ", ".join(sorted(packs - _NOT_LANGUAGES))
        packages = " ".join("tesseract-ocr-" + m.replace("_", "-") for m in missing)
        raise Usage(
            "ocr.language-missing",
            f"no language pack for {', '.join(missing)}; installed: {known}",
            hint=f"apt-get install {packages}",
        )
    return wanted or tuple(sorted(packs - _NOT_LANGUAGES, key=lambda code: (code != "eng", code)))


def script_of(language: str) -> str:
    """The script a language pack is for, by OSD's name."""
    return SCRIPT_OF.get(language, "Latin")


def for_script(languages: tuple[str, ...], script: str) -> tuple[str, ...]:
    """The languages written in this script; all of them where it is unknown (""), none where none is."""
    return tuple(code for code in languages if not script or script_of(code) == script)


def orientation(image: Image.Image, *, dpi: int) -> Orientation:
    """Which way is up and which script. All unknown where the page has too little text to tell."""
    try:
        out = _run(image, "--psm", "0", "--dpi", str(dpi))
    except TesseractError:
        return Orientation()
    fields = {name.strip(): value.strip() for name, value in _FIELD.findall(out)}
    try:
        return msgspec.convert(
            {
                "rotate": int(fields["Rotate"]) % 360,
                "rotate_confidence": float(fields["Orientation confidence"]),
                "script": "Latin" if fields["Script"] == _ALSO_LATIN else fields["Script"],
                "script_confidence": float(fields["Script confidence"]),
            },
            Orientation,
        )
    except (KeyError, ValueError):
        return Orientation()


def read(image: Image.Image, *, languages: tuple[str, ...], dpi: int) -> tuple[Block, ...]:
    """The page's paragraphs in Tesseract's reading order (automatic segmentation, columns kept)."""
    return parse_tsv(_run(image, "--psm", "3", "--dpi", str(dpi), "-l", "+".join(languages), "tsv"))


def parse_tsv(tsv: str) -> tuple[Block, ...]:
    """Blocks from Tesseract's table output: block, paragraph and line numbers are its layout analysis."""
    rows = csv.DictReader(io.StringIO(tsv), delimiter="\t", quoting=csv.QUOTE_NONE)
    words = [r for r in rows if r["level"] == _WORD_LEVEL and (r["text"] or "").strip()]
    return tuple(
        Block(
            tuple(
                Line(tuple(_word(r) for r in line))
                for _, line in groupby(paragraph, key=lambda r: r["line_num"])
            )
        )
        for _, paragraph in groupby(words, key=lambda r: (r["block_num"], r["par_num"]))
    )


def _word(row: dict[str, str]) -> Word:
    left, top = int(row["left"]), int(row["top"])
    box = (left, top, left + int(row["width"]), top + int(row["height"]))
    return Word(row["text"].strip(), max(0.0, float(row["conf"])), box)


class TesseractError(AllodError):
    """The program ended with an error: for OSD that mostly means too little text, for reading a bad image."""


def _run(image: Image.Image, *arguments: str) -> str:
    raw = io.BytesIO()
    image.convert("L" if image.mode in {"1", "L"} else "RGB").save(raw, "PPM")  # no compression to pay for
    process = subprocess.Popen(
        [binary(), "stdin", "stdout", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    # The worker's own CPU limit counts from the worker's start; the child gets a page's worth from its own.
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (PAGE_CPU_SECONDS_MAX, PAGE_CPU_SECONDS_MAX + 1))
    try:
        out, err = process.communicate(raw.getvalue(), timeout=PAGE_WALL_SECONDS_MAX)
    except subprocess.TimeoutExpired as e:
        process.kill()
        process.communicate()
        raise TesseractError("ocr.tesseract-timeout", "tesseract took too long over the page") from e
    if process.returncode != 0:
        said = err.decode("utf-8", "replace").strip().splitlines()
        raise TesseractError(
            "ocr.tesseract-failed",
            f"tesseract ended with {process.returncode}: {said[-1] if said else 'it said nothing'}",
        )
    return out.decode("utf-8", "replace")
