"""Drawn cats and dogs: a two-class data set that needs no download."""

import numpy as np
from numpy.typing import NDArray

from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.drawn.bodies import paint_animal
from tinyconv.data.drawn.canvas import Canvas
from tinyconv.data.drawn.looks import random_look
from tinyconv.data.drawn.pictures import drawn_dataset
from tinyconv.data.drawn.scenery import paint_background, paint_foreground, photograph


def drawn_cats_and_dogs(count: int, size: int = 64, seed: int = 0) -> ArrayDataset:
    """`count` drawn pictures, cats at even and dogs at odd indices.

    Images are uint8 (count, size, size, 3), labels 0 for "cat" and 1 for "dog", `drawn` is True.
    Picture i depends only on seed, i and size, so a longer set begins with the shorter one.
    Raises ValueError for a count below 1, a negative seed and a size below 16.
    """
    return drawn_dataset(draw_animal, ["cat", "dog"], count, size, 3, seed)


def draw_animal(label: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture of a cat (label 0) or a dog (label 1), uint8 (size, size, 3)."""
    look = random_look(is_cat=label == 0, rng=rng)
    supersampled = size * (3 if size < 128 else 2)  # for smooth edges after scaling down
    image = paint_background(supersampled, look.fur, rng)
    canvas = Canvas.on(image, look.ink_width * look.scale)
    head, radius = paint_animal(canvas, look, rng)
    if look.occluded:
        paint_foreground(canvas, head, radius, rng)
    return photograph(image, size, rng)
