"""Images to transform, and checks of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(height: int, width: int, channels: int = 3) -> np.ndarray:
    """An image whose first pixel values tell the row and the column (the third is 1)."""
    image = np.ones((height, width, 3), dtype=np.uint8)
    image[:, :, 0], image[:, :, 1] = np.mgrid[1 : height + 1, 1 : width + 1]
    return image[:, :, :channels]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Random bytes that may not be written to."""
    image = rng().integers(0, 256, (height, width, channels), dtype=np.uint8)
    image.flags.writeable = False
    return image


def assert_even(values: Sequence[float] | np.ndarray, low: float, high: float) -> None:
    """The values lie within low and high and fill ten equal parts alike: chi-squared, p = 0.001."""
    assert low <= min(values)
    assert max(values) <= high
    counts, _ = np.histogram(values, bins=10, range=(low, high))
    expected = len(values) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9
