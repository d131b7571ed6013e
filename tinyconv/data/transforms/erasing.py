"""A rectangle of the image painted over."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tinyconv.data.transforms.check import (
    Numbers,
    as_colour,
    as_probability,
    as_range,
    for_channels,
)
from tinyconv.data.transforms.compose import ImageTransform
from tinyconv.data.transforms.crop import draw_sides


class RandomErasing(ImageTransform):
    """With probability `p` paint over a random rectangle (Zhong et al., "Random Erasing Data
    Augmentation", 2017).

    It covers `scale` = (least, most) of the image's area, drawn evenly, and has an aspect height /
    width in `ratio`, whose logarithm is drawn evenly; where ten draws do not fit into the image,
    it stays as it is. `value` is the colour, 0 to 255 or one for each channel, or "random": noise,
    each byte drawn for itself. The image is not normalised yet, so 0 is black.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: Numbers | Literal["random"] = 0,
    ) -> None:
        self.p = as_probability("p", p)
        self.scale = as_range("scale", scale, least=0, most=1)
        self.ratio = as_range("ratio", ratio, above=0)
        if isinstance(value, str) and value != "random":
            raise ValueError(f'value is {value!r}; expected a colour or "random"')
        self.value = value if isinstance(value, str) else as_colour("value", value)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.p:
            return image
        top, left, height, width = self.draw(image.shape[0], image.shape[1], rng)
        image = image.copy()
        part = image[top : top + height, left : left + width]
        if isinstance(self.value, str):
            part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
        else:
            part[:] = for_channels("value", self.value, image.shape[2])
        return image

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a rectangle in an image of height x width pixels."""
        for _ in range(10):
            across, down = draw_sides(height * width, self.scale, self.ratio, rng)
            if down < height and across < width:
                top, left = rng.integers(height - down + 1), rng.integers(width - across + 1)
                return int(top), int(left), down, across
        return 0, 0, 0, 0
