"""What reads the pages, in digests: the programs, the weights, and where they come from.

A receipt names these. They are computed from the installed files, never from a list of known versions.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import msgspec

from allod import canonical, digest
from allod.engines.ocr import rapid, tesseract

TESSERACT_ORIGIN = "Tesseract (community; begun at Hewlett-Packard, then Google, US), Apache-2.0"
PDFIUM_ORIGIN = "PDFium (Google, US), BSD-3-Clause and Apache-2.0"
_SHARED = ("libtesseract", "liblept")  # the program itself is a thin shell around these


class OcrIdentity(msgspec.Struct, frozen=True):
    """`origins` maps each engine that can appear in an answer to whose work it is."""

    engine: str
    engine_digest: str
    model_digest: str
    model_files: dict[str, str]
    origins: dict[str, str]
    tessdata: Path
    tesseract_binary: Path


def ocr_identity(*, languages: tuple[str, ...], rapidocr: bool) -> OcrIdentity:
    """Reads and hashes the installed files (about 60 MB, well under a second).

    Raises Usage where a language pack is missing and NotReady where Tesseract is not installed.
    """
    chosen = tesseract.check_languages(languages)
    folder, _ = tesseract.installed()
    binary = tesseract.binary()
    weights = [folder / f"{code}.traineddata" for code in (*chosen, "osd")]
    programs = {path.name: digest.of_file(path) for path in (binary, *_libraries(binary))}
    engine = [tesseract.version(), f"pypdfium2 {version('pypdfium2')}"]
    programs["pypdfium2"] = _package_digest("pypdfium2")
    origins = {
        "born-digital": PDFIUM_ORIGIN,
        "tesseract": TESSERACT_ORIGIN,
        "tesseract+prep": TESSERACT_ORIGIN,
    }
    if rapidocr:
        engine.insert(1, f"rapidocr {rapid.package_version()}")
        weights += rapid.model_paths()
        origins["rapidocr"] = rapid.ORIGIN
        programs |= {name: _package_digest(name) for name in ("rapidocr", "onnxruntime")}
    files = {path.name: digest.of_file(path) for path in weights}
    return OcrIdentity(
        engine=" + ".join(engine),
        engine_digest=digest.of(canonical.dumps(programs)),
        model_digest=digest.of(canonical.dumps(files)),
        model_files=files,
        origins=origins,
        tessdata=folder,
        tesseract_binary=binary,
    )


def python_paths() -> tuple[Path, ...]:
    """The folders a replica's Python needs to see: its environment, standard library, and allod itself."""
    own = Path(__file__).resolve().parents[3]
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent, own}
    return tuple(sorted(found))


def _libraries(binary: Path) -> tuple[Path, ...]:
    """The shared libraries that hold the recogniser, as the loader would find them."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    fields = (line.split() for line in listed.splitlines())
    return tuple(
        sorted(
            Path(f[2]).resolve() for f in fields if len(f) > 2 and f[0].startswith(_SHARED) and f[1] == "=>"
        )
    )


def _package_digest(name: str) -> str:
    """Of the package's own record of its files: it lists the hash of each."""
    record = distribution(name).read_text("RECORD")
    return digest.of((record or f"{name} {version(name)}").encode())
