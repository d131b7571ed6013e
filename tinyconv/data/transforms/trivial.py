"""TrivialAugment: one operation drawn from a list, with a strength drawn from a list.

Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021;
the operations and strengths are those of its wide space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyconv.data.transforms import colour
from tinyconv.data.transforms.check import Numbers, as_colour, as_interpolation
from tinyconv.data.transforms.compose import ImageTransform
from tinyconv.data.transforms.geometry import affine, rotate


class Operation(NamedTuple):
    """apply(image, magnitude, how), where `how` is the interpolation and fill for a moved image.

    The magnitudes run evenly from `first` to `last`; where `signed`, half are made negative. They
    are the slope of a shear, pixels of a shift, degrees of a turn, the factor's distance from 1,
    the bits that Posterize keeps and the threshold of Solarize.
    """

    apply: Callable[[np.ndarray, float, dict[str, Any]], np.ndarray]
    first: float = 0
    last: float = 0
    signed: bool = False

    def magnitudes(self, bins: int) -> list[float]:
        """All `bins` magnitudes, without signs."""
        return [self.first + (self.last - self.first) * n / (bins - 1) for n in range(bins)]


def _angle(slope: float) -> float:
    return math.degrees(math.atan(slope))


OPERATIONS = {
    "Identity": Operation(lambda image, m, how: image),
    "ShearX": Operation(
        lambda image, m, how: affine(image, shear=(_angle(m), 0), center=(0, 0), **how),
        0, 0.99, signed=True,
    ),
    "ShearY": Operation(
        lambda image, m, how: affine(image, shear=(0, _angle(m)), center=(0, 0), **how),
        0, 0.99, signed=True,
    ),
    "TranslateX": Operation(
        lambda image, m, how: affine(image, translate=(int(m), 0), **how), 0, 32, signed=True
    ),
    "TranslateY": Operation(
        lambda image, m, how: affine(image, translate=(0, int(m)), **how), 0, 32, signed=True
    ),
    "Rotate": Operation(lambda image, m, how: rotate(image, m, **how), 0, 135, signed=True),
    "Brightness": Operation(
        lambda image, m, how: colour.adjust_brightness(image, 1 + m), 0, 0.99, signed=True
    ),
    "Color": Operation(
        lambda image, m, how: colour.adjust_saturation(image, 1 + m), 0, 0.99, signed=True
    ),
    "Contrast": Operation(
        lambda image, m, how: colour.adjust_contrast(image, 1 + m), 0, 0.99, signed=True
    ),
    "Sharpness": Operation(
        lambda image, m, how: colour.adjust_sharpness(image, 1 + m), 0, 0.99, signed=True
    ),
    "Posterize": Operation(lambda image, m, how: colour.posterize(image, round(m)), 8, 2),
    "Solarize": Operation(lambda image, m, how: colour.solarize(image, m), 255, 0),
    "AutoContrast": Operation(lambda image, m, how: colour.autocontrast(image)),
    "Equalize": Operation(lambda image, m, how: colour.equalize(image)),
}  # fmt: skip


class TrivialAugmentWide(ImageTransform):
    """One of 14 operations, with one of `num_magnitude_bins` strengths, all equally likely.

    `fill` is the colour where a moved image leaves nothing.
    """

    def __init__(
        self, num_magnitude_bins: int = 31, interpolation: str = "nearest", fill: Numbers = 0
    ) -> None:
        if num_magnitude_bins < 2:
            raise ValueError(f"num_magnitude_bins is {num_magnitude_bins}; expected 2 or more")
        self.num_magnitude_bins = num_magnitude_bins
        self.interpolation = as_interpolation(interpolation)
        self.fill = as_colour("fill", fill)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        name, magnitude = self.draw(rng)
        how = {"interpolation": self.interpolation, "fill": self.fill}
        return OPERATIONS[name].apply(image, magnitude, how)

    def draw(self, rng: np.random.Generator) -> tuple[str, float]:
        """The name of an operation, and a magnitude for it."""
        name = list(OPERATIONS)[rng.integers(len(OPERATIONS))]
        operation, bins = OPERATIONS[name], self.num_magnitude_bins
        magnitude = operation.magnitudes(bins)[rng.integers(bins)]
        return name, -magnitude if operation.signed and rng.random() < 0.5 else magnitude
