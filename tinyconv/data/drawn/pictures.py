"""Turns a function that draws one picture into a data set."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tinyconv.data.dataset import ArrayDataset

SMALLEST = 16  # pixels; below, neither an ear nor a digit's loop can be made out

DrawPicture = Callable[[int, int, np.random.Generator], NDArray[np.uint8]]


def drawn_dataset(
    draw: DrawPicture, classes: Sequence[str], count: int, size: int, channels: int, seed: int
) -> ArrayDataset:
    """`count` pictures by `draw(label, size, generator)`, the classes taking turns.

    Picture i has a random source of its own, made from seed and i: it does not depend on count.
    Raises ValueError for a count below 1, a negative seed and a size below 16.
    """
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1 picture")
    if size < SMALLEST:
        raise ValueError(f"size is {size}; expected at least {SMALLEST} pixels")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    labels = np.arange(count, dtype=np.int64) % len(classes)
    images = np.empty((count, size, size, channels), dtype=np.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index] = draw(label, size, np.random.default_rng((seed, index)))
    return ArrayDataset(images, labels, list(classes), drawn=True)
