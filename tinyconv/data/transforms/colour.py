"""Brightness, contrast, saturation, hue, sharpness, and curves of the grey values.

An adjustment by `factor` goes from something plain (factor 0) through the image (1) and beyond:
plain + factor (image - plain), cut off at 0 and 255.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from tinyconv.data.transforms.check import Numbers, as_spread
from tinyconv.data.transforms.compose import ImageTransform
from tinyconv.data.transforms.pillow import from_pillow, to_pillow


class ColorJitter(ImageTransform):
    """Adjust brightness, contrast, saturation and hue by amounts drawn evenly, in random order.

    The first three take a factor from (low, high), or a number s for (max(0, 1 - s), 1 + s); the
    hue is turned by a share from (low, high), or h for (-h, h), h at most 0.5. What is given as 0
    stays as it is. A grey image has no saturation and no hue to change.
    """

    def __init__(
        self,
        brightness: Numbers = 0,
        contrast: Numbers = 0,
        saturation: Numbers = 0,
        hue: Numbers = 0,
    ) -> None:
        self.brightness = as_spread("brightness", brightness, 1, 0, math.inf)
        self.contrast = as_spread("contrast", contrast, 1, 0, math.inf)
        self.saturation = as_spread("saturation", saturation, 1, 0, math.inf)
        self.hue = as_spread("hue", hue, 0, -0.5, 0.5)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        adjustments = (
            (adjust_brightness, self.brightness, 1),
            (adjust_contrast, self.contrast, 1),
            (adjust_saturation, self.saturation, 1),
            (adjust_hue, self.hue, 0),
        )
        for n in rng.permutation(4):
            adjust, amounts, nothing = adjustments[n]
            if amounts != (nothing, nothing):
                image = adjust(image, rng.uniform(*amounts))
        return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """0 is black."""
    return from_pillow(ImageEnhance.Brightness(to_pillow(image)).enhance(factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """0 is an even grey, the mean of the image's grey values."""
    return from_pillow(ImageEnhance.Contrast(to_pillow(image)).enhance(factor))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """0 is the image in grey."""
    return from_pillow(ImageEnhance.Color(to_pillow(image)).enhance(factor))


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """0 is the image smoothed over 3 x 3 pixels."""
    return from_pillow(ImageEnhance.Sharpness(to_pillow(image)).enhance(factor))


def adjust_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Every hue moved along the colour circle by `turn`, where 1 (and -1) is once around."""
    if image.shape[2] == 1:
        return image
    hsv = np.array(to_pillow(image).convert("HSV"))
    hsv[:, :, 0] += np.uint8(int(turn * 255) % 256)  # wraps around, as hues do
    return from_pillow(Image.frombuffer("HSV", image.shape[1::-1], hsv).convert("RGB"))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Only the upper `bits` (0 to 8) bits of each value kept."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Values from `threshold` up inverted, as on film exposed to light a second time."""
    return np.where(image < threshold, image, 255 - image)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Each channel stretched so that its values reach from 0 to 255."""
    return from_pillow(ImageOps.autocontrast(to_pillow(image)))


def equalize(image: np.ndarray) -> np.ndarray:
    """Each channel's values changed so that all grey levels become about equally frequent."""
    return from_pillow(ImageOps.equalize(to_pillow(image)))
