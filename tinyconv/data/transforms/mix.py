"""Images of a batch mixed with one another, and their labels in the same proportion.

A mix is called with images uint8 (N, H, W, C), labels int64 (N,) and a NumPy Generator; it
returns new images uint8 and labels as probabilities float32 (N, num_classes), which
F.cross_entropy takes as they are. Every image is mixed with the one before it in the batch (the
first with the last), so the batches have to be shuffled.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinyconv.data.transforms.compose import BatchMix
from tinyconv.errors import ShapeError

Mix = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


class MixUp(BatchMix):
    """l image + (1 - l) other, with l drawn from Beta(alpha, alpha) for the whole batch.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. Values are rounded.
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int) -> None:
        self.alpha, self.num_classes = _checked(alpha, num_classes)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        one_hot = _one_hot(images, labels, self.num_classes)
        share = np.float32(rng.beta(self.alpha, self.alpha))
        mixed = np.empty_like(images)
        for n in range(len(images)):  # one by one, the intermediate floats stay in the cache
            mixed[n] = np.rint(_blend(images[n], images[n - 1], share))
        return mixed, _blend(one_hot, np.roll(one_hot, 1, axis=0), share)


class CutMix(BatchMix):
    """A rectangle of each image replaced by that of the other, the same for the whole batch.

    Its sides are sqrt(1 - l) of the image's, l drawn from Beta(alpha, alpha), and its middle is
    drawn evenly; it is cut off at the border, and the labels are mixed by the area that is left.
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", 2019.
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int) -> None:
        self.alpha, self.num_classes = _checked(alpha, num_classes)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        one_hot = _one_hot(images, labels, self.num_classes)
        _, height, width, _ = images.shape
        top, left, bottom, right = self.draw(height, width, rng)
        mixed = images.copy()
        mixed[:, top:bottom, left:right] = np.roll(images[:, top:bottom, left:right], 1, axis=0)
        kept = np.float32(1 - (bottom - top) * (right - left) / (height * width))
        return mixed, _blend(one_hot, np.roll(one_hot, 1, axis=0), kept)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the rectangle in images of height x width pixels."""
        half = 0.5 * math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        half_width, half_height = int(half * width), int(half * height)
        return (
            max(y - half_height, 0),
            max(x - half_width, 0),
            min(y + half_height, height),
            min(x + half_width, width),
        )


def _blend(one: np.ndarray, other: np.ndarray, share: np.float32) -> np.ndarray:
    return share * one + (1 - share) * other


def _one_hot(images: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ShapeError(
            f"images of shape {images.shape} and labels of shape {labels.shape}; "
            "expected (N, H, W, C) and (N,)"
        )
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise ValueError(
            f"label {outside[0]} is out of range; expected 0 to {num_classes - 1} "
            f"for num_classes={num_classes}"
        )
    return np.eye(num_classes, dtype=np.float32)[labels]


def _checked(alpha: float, num_classes: int) -> tuple[float, int]:
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha is {alpha!r}; expected a number above 0")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes!r}; expected 1 or more")
    return alpha, num_classes
