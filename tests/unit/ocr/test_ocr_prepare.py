"""Preparation undoes what scanners and phones do, and leaves a good page alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from allod.engines.ocr.prepare import enlarge, flatten, prepare, skew
from allod.limits import RENDER_PIXELS_MAX


@pytest.fixture(scope="module")
def lines() -> Image.Image:
    page = Image.new("L", (1000, 1200), 255)
    pen = ImageDraw.Draw(page)
    for top in range(100, 1100, 40):
        for left in range(100, 880, 26):
            pen.rectangle((left, top, left + 16, top + 16), fill=20)
    return page


@pytest.mark.parametrize("angle", [-5.0, -1.2, 0.0, 0.7, 4.0])
def test_skew_is_measured(lines: Image.Image, angle: float) -> None:
    turned = lines.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255)
    assert skew(np.asarray(turned)) == pytest.approx(-angle, abs=0.2)


def test_an_empty_page_has_no_skew() -> None:
    assert skew(np.full((600, 400), 255, dtype=np.uint8)) == 0.0


def test_a_shadow_is_taken_off(lines: Image.Image) -> None:
    shadow = np.linspace(1.0, 0.3, 1000)[None, :]
    flat = flatten((np.asarray(lines) * shadow).astype(np.uint8))
    paper = flat[60, :]  # a row without ink
    assert int(paper.max()) - int(paper.min()) < 25


def test_small_letters_grow_but_never_past_the_bound() -> None:
    small = np.full((500, 500), 255, dtype=np.uint8)
    assert enlarge(small, 12.0).shape == (1250, 1250)
    assert enlarge(small, 40.0).shape == (500, 500)
    assert enlarge(np.full((3900, 3900), 255, dtype=np.uint8), 5.0).size <= RENDER_PIXELS_MAX


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_odd_sheets_are_survived(size: tuple[int, int]) -> None:
    prepare(Image.new("RGB", size, "white"), letter_height=None)
