"""What happens to a specimen on its way to a reader: rotation, glare, shadow, blur, low resolution, noise.

Guarantees: the same picture, wear and seed give the same picture. Nothing here draws or removes a text.
"""

from __future__ import annotations

import msgspec
import numpy as np
from PIL import Image, ImageFilter


class Wear(msgspec.Struct, frozen=True):
    """How bad it is; the default is not at all."""

    rotation_deg: float = 0.0  # counter-clockwise
    scale: float = 1.0  # of the resolution; 0.5 makes 300 dpi 150
    blur_px: float = 0.0  # radius, after scaling
    shadow: float = 0.0  # share of light lost at the darkest corner
    glare: float = 0.0  # 1.0: the middle of a bright spot over the zone is white
    noise: float = 0.0  # standard deviation, grey levels


WEAR: dict[str, Wear] = {
    "clean": Wear(),
    "scan": Wear(rotation_deg=0.7, scale=0.67, blur_px=0.4, noise=8),
    "photo": Wear(rotation_deg=-3, scale=0.6, blur_px=0.7, shadow=0.45, noise=6),
    "glare": Wear(rotation_deg=1, scale=0.67, blur_px=0.4, glare=0.85, noise=6),
    "small": Wear(scale=0.42, blur_px=0.6, noise=5),
}
_GROUND = (200, 198, 192)


def worn(page: Image.Image, wear: Wear, seed: int) -> Image.Image:
    """The picture as a reader gets it."""
    image = page.convert("RGB")
    if wear.rotation_deg:
        image = image.rotate(wear.rotation_deg, Image.Resampling.BICUBIC, expand=True, fillcolor=_GROUND)
    if wear.scale != 1.0:
        size = (round(image.width * wear.scale), round(image.height * wear.scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    if wear.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(wear.blur_px))
    pixels = np.asarray(image, dtype=np.float64)
    down, across = np.mgrid[0 : image.height, 0 : image.width]
    rng = np.random.default_rng(seed)
    if wear.shadow:
        light = 1 - wear.shadow * (across / image.width) * (0.5 + 0.5 * down / image.height)
        pixels = pixels * light[..., None]
    if wear.glare:
        x = image.width * rng.uniform(0.3, 0.7)
        y = image.height * rng.uniform(0.8, 0.95)
        reach = image.width * 0.12
        spot = wear.glare * np.exp(-(((across - x) / reach) ** 2 + ((down - y) / (reach / 2)) ** 2))
        pixels = pixels + (255 - pixels) * spot[..., None]
    if wear.noise:
        pixels = pixels + rng.normal(0, wear.noise, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
