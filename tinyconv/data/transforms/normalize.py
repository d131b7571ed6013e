"""From bytes to the numbers that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyconv.data.transforms.compose import Settings
from tinyconv.errors import ShapeError


class Normalize(Settings):
    """(x / 255 - mean) / std for each channel: uint8 (H, W, C) -> float32 (H, W, C).

    For loops of one's own. A Loader hands out bytes, and Trainer and evaluate normalise them on
    the device by the mean and std that they are given, so this does not belong in `augment`.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if not (
            np.ndim(mean) == np.ndim(std) == 1
            and len(mean) == len(std) > 0
            and all(value > 0 for value in std)
        ):
            raise ValueError(
                f"mean is {mean!r} and std {std!r}; expected one number of each for every channel, "
                "std above 0"
            )
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        if image.dtype != np.uint8 or image.shape[-1] != len(self.mean):
            raise ShapeError(
                f"{self!r}: the image is {image.dtype} {image.shape}; "
                f"expected uint8 (H, W, {len(self.mean)})"
            )
        mean, std = np.array([self.mean, self.std], dtype=np.float32)
        return (image / np.float32(255) - mean) / std
