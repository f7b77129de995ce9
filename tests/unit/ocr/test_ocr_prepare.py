"""Preparation undoes what scanners and phones do, and leaves a good page alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from allod.engines.ocr.prepare import enlarge, evenly_lit, flatten, letter_height, prepared, skew
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


def test_small_letters_grow_but_never_past_the_bound(lines: Image.Image) -> None:
    half = np.asarray(lines.resize((500, 600)))
    assert letter_height(half) == pytest.approx(8.5, abs=1.5)
    assert enlarge(half).shape[0] == pytest.approx(600 * 20 / 8.5, rel=0.15)
    large = np.asarray(lines.resize((2000, 2400)))
    assert enlarge(large).shape == large.shape
    many = np.tile(half, (6, 7))
    assert enlarge(many).size <= RENDER_PIXELS_MAX
    assert letter_height(np.full((50, 50), 255, dtype=np.uint8)) is None


def test_a_shadow_is_noticed_and_a_dark_scan_is_not_one(lines: Image.Image) -> None:
    grey = np.asarray(lines)
    shadow = (grey * np.linspace(1.0, 0.5, 1000)[None, :]).astype(np.uint8)
    assert evenly_lit(lines)
    assert evenly_lit(Image.fromarray((grey * 0.6).astype(np.uint8)))
    assert not evenly_lit(Image.fromarray(shadow))


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_odd_sheets_are_survived(size: tuple[int, int]) -> None:
    prepared(Image.new("RGB", size, "white"))
