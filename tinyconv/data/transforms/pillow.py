"""Images on their way into Pillow and back, and what Pillow calls the ways of interpolating."""

from __future__ import annotations

import numpy as np
from PIL import Image

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as a Pillow image of mode "L" (C = 1) or "RGB" (C = 3)."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image of mode "L" or "RGB" as uint8 (H, W, C), C = 1 or 3."""
    return np.array(image).reshape(image.height, image.width, -1)
