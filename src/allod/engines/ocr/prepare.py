"""Makes a hard page easier: even light, straight lines, letters large enough. Pure: image in, image out.

Each step was measured to help Tesseract on photographed and skewed pages, and each is a no-op on a page that
does not need it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from allod.limits import RENDER_PIXELS_MAX

Grey = NDArray[np.uint8]

SKEW_DEGREES_MAX = 8.0  # beyond, lines of text are no longer told from columns
SKEW_IGNORED_DEGREES = 0.15  # Tesseract copes; resampling would cost more than it gives
_SKEW_WIDTH = 900  # pixels; enough to see lines, small enough to try sixty angles
LETTER_HEIGHT_WANTED = 20.0  # pixels of a median letter; Tesseract's models were trained near that
LETTERS_MIN = 30  # fewer marks on the page say nothing about its letters
ENLARGE_MAX = 2.5
UNEVEN_LIGHT_MIN = 60  # grey levels between the brightest and the darkest paper


def evenly_lit(image: Image.Image) -> bool:
    """Whether the paper has one brightness. In a shadow Tesseract loses text and stays sure of the rest."""
    paper = _paper(_grey(image))
    bright, dark = np.percentile(paper, (95, 5))
    return bool(bright - dark < UNEVEN_LIGHT_MIN)


def flattened(image: Image.Image) -> Image.Image:
    return Image.fromarray(flatten(_grey(image)))


def levelled(image: Image.Image) -> Image.Image:
    return Image.fromarray(deskew(_grey(image)))


def prepared(image: Image.Image) -> Image.Image:
    """Flattened, deskewed, and enlarged where letters are small. Grey, 8 bit."""
    return Image.fromarray(enlarge(deskew(flatten(_grey(image)))))


def _grey(image: Image.Image) -> Grey:
    return np.asarray(image.convert("L"), dtype=np.uint8)


def _paper(grey: Grey) -> Grey:
    """The page without its letters, at about 400 pixels across."""
    height, width = grey.shape
    scale = max(1, min(height, width) // 400)
    small = cv2.resize(grey, (max(1, width // scale), max(1, height // scale)), interpolation=cv2.INTER_AREA)
    filled = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
    return np.asarray(cv2.GaussianBlur(filled, (0, 0), 9), dtype=np.uint8)


def flatten(grey: Grey) -> Grey:
    """Divides by the paper's own brightness, so that a shadow across a photograph is gone."""
    height, width = grey.shape
    background = cv2.resize(_paper(grey), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.divide(grey, np.maximum(background, 1), scale=245), dtype=np.uint8)


def deskew(grey: Grey) -> Grey:
    """Turned so that lines of text are level; white where paper was missing."""
    angle = skew(grey)
    return grey if abs(angle) < SKEW_IGNORED_DEGREES else _turn(grey, angle)


def skew(grey: Grey) -> float:
    """Degrees (counter-clockwise) that make the lines level, within SKEW_DEGREES_MAX; 0 where none is better.

    The right angle is where dark pixels gather in rows: the row sums then change most from row to row.
    """
    width = min(_SKEW_WIDTH, grey.shape[1])
    height = max(1, round(grey.shape[0] * width / grey.shape[1]))
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    _, ink = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)

    def sharpness(angle: float) -> float:
        rows = _turn(np.asarray(ink, dtype=np.uint8), angle, fill=0).sum(axis=1, dtype=np.float64)
        return float(np.square(np.diff(rows)).sum())

    coarse = max(np.arange(-SKEW_DEGREES_MAX, SKEW_DEGREES_MAX + 0.1, 0.5), key=lambda a: sharpness(float(a)))
    fine = max(np.arange(coarse - 0.4, coarse + 0.41, 0.1), key=lambda a: sharpness(float(a)))
    return float(fine) if sharpness(float(fine)) > 1.05 * sharpness(0.0) else 0.0


def enlarge(grey: Grey) -> Grey:
    """Scaled up towards LETTER_HEIGHT_WANTED, never down, never past RENDER_PIXELS_MAX."""
    letters = letter_height(grey)
    if letters is None:
        return grey
    room = float(np.sqrt(RENDER_PIXELS_MAX / grey.size))
    factor = min(LETTER_HEIGHT_WANTED / letters, ENLARGE_MAX, room)
    if factor < 1.1:
        return grey
    height, width = grey.shape
    larger = (int(width * factor), int(height * factor))
    return np.asarray(cv2.resize(grey, larger, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def letter_height(grey: Grey) -> float | None:
    """Pixels of the median mark that could be a letter; None where there are too few to say."""
    _, ink = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    _, _, marks, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    heights = marks[1:, cv2.CC_STAT_HEIGHT]
    likely = heights[(heights >= 5) & (heights <= grey.shape[0] / 10)]
    return float(np.median(likely)) if len(likely) >= LETTERS_MIN else None


def _turn(grey: Grey, angle: float, fill: int = 255) -> Grey:
    height, width = grey.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turned = cv2.warpAffine(
        grey,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.asarray(turned, dtype=np.uint8)
