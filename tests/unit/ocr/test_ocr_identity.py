"""What a receipt will say read the page: computed from the files that did."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from allod import canonical
from allod.engines.ocr.identity import ocr_identity
from allod.engines.ocr.spec import ocr_spec
from allod.engines.ocr.tesseract import for_script
from allod.errors import Usage


def test_the_model_digest_is_that_of_the_weights_in_use() -> None:
    alone = ocr_identity(languages=("eng", "fra"), rapidocr=False)
    assert set(alone.model_files) == {"eng.traineddata", "fra.traineddata", "osd.traineddata"}
    content = (alone.tessdata / "fra.traineddata").read_bytes()
    assert alone.model_files["fra.traineddata"] == "sha256:" + hashlib.sha256(content).hexdigest()
    whole = hashlib.sha256(canonical.dumps(alone.model_files)).hexdigest()
    assert alone.model_digest == "sha256:" + whole
    assert "rapidocr" not in alone.origins


def test_rapidocr_shows_in_the_engine_the_weights_and_the_origin() -> None:
    both = ocr_identity(languages=("eng",), rapidocr=True)
    assert "rapidocr 3." in both.engine
    assert any(name.endswith(".onnx") for name in both.model_files)
    assert "Baidu (CN)" in both.origins["rapidocr"]


def test_a_missing_language_is_refused_with_the_package_to_install() -> None:
    with pytest.raises(Usage) as refused:
        ocr_identity(languages=("eng", "tlh_x"), rapidocr=False)
    assert refused.value.code == "ocr.language-missing"
    assert refused.value.hint == "apt-get install tesseract-ocr-tlh-x"


def test_languages_are_chosen_by_script() -> None:
    configured = ("eng", "ell", "bul", "pol")
    assert for_script(configured, "Latin") == ("eng", "pol")
    assert for_script(configured, "Greek") == ("ell",)
    assert for_script(configured, "Arabic") == ()
    assert for_script(configured, "") == configured


def test_the_launch_is_sealed_and_names_what_it_reads(tmp_path: Path) -> None:
    spec = ocr_spec(id="ocr-1", run_dir=tmp_path, languages=("eng",), rapidocr=False, workers=2)
    assert spec.network is False
    assert spec.socket == tmp_path / "http.sock"
    assert spec.env["ORT_DISABLE_TELEMETRY"] == "1"
    assert {"--rapidocr=off", "--languages=eng", "--workers=2"} <= set(spec.argv)
    assert spec.engine_digest.startswith("sha256:")
    assert all(path.is_absolute() and path.exists() for path in spec.read_only)
