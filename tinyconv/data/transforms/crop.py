"""Sizes and places: resize, crops and the mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tinyconv.data.image import as_height_width
from tinyconv.data.transforms.check import as_padding, as_probability, as_range
from tinyconv.data.transforms.compose import ImageTransform
from tinyconv.data.transforms.pillow import from_pillow, to_pillow
from tinyconv.errors import ShapeError


class Resize(ImageTransform):
    """Resize to (height, width); one number is the new length of the shorter edge, the proportions
    kept. Bilinear and antialiased."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        as_height_width(size)
        self.size = size

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width, _ = image.shape
        if not isinstance(self.size, int):
            height, width = self.size
        elif height < width:
            height, width = self.size, int(self.size * width / height)
        else:
            height, width = int(self.size * height / width), self.size
        return _resize(image, (height, width))


class CenterCrop(ImageTransform):
    """Cut (height, width), or a square, out of the middle; ShapeError for a smaller image, which
    torchvision pads with black."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = as_height_width(size)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room_y, room_x = _room(self, image, self.size)
        return _cut(image, round(room_y / 2), round(room_x / 2), self.size)


class RandomCrop(ImageTransform):
    """Cut (height, width), or a square, out at a random place, after adding `padding` black pixels:
    one number for every side, (x, y), or (left, top, right, bottom). ShapeError for an image that
    is smaller even so."""

    def __init__(self, size: int | tuple[int, int], padding: int | Sequence[int] = 0) -> None:
        as_padding("padding", padding)
        self.size = as_height_width(size)
        self.padding = padding

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        left, top, right, bottom = as_padding("padding", self.padding)
        if left or top or right or bottom:
            image = np.pad(image, ((top, bottom), (left, right), (0, 0)))
        room_y, room_x = _room(self, image, self.size)
        top, left = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
        return _cut(image, top, left, self.size)


class RandomResizedCrop(ImageTransform):
    """Cut out a random part and resize it to (height, width), or a square: how Inception networks
    were trained (Szegedy et al., "Going deeper with convolutions", 2015).

    The part covers `scale` = (least, most) of the image's area, drawn evenly, and has an aspect
    width / height in `ratio`, whose logarithm is drawn evenly. Where ten draws do not fit into the
    image, the largest middle part of an aspect within `ratio` is taken. Bilinear and antialiased.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        self.size = as_height_width(size)
        self.scale = as_range("scale", scale, above=0, most=1)
        self.ratio = as_range("ratio", ratio, above=0)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top, left, height, width = self.draw(image.shape[0], image.shape[1], rng)
        return _resize(_cut(image, top, left, (height, width)), self.size)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a part of an image of height x width pixels."""
        for _ in range(10):
            cut_h, cut_w = draw_sides(height * width, self.scale, self.ratio, rng)
            if 0 < cut_w <= width and 0 < cut_h <= height:
                top, left = rng.integers(height - cut_h + 1), rng.integers(width - cut_w + 1)
                return int(top), int(left), cut_h, cut_w
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        cut_h = min(height, round(width / aspect))
        cut_w = min(width, round(height * aspect))
        return (height - cut_h) // 2, (width - cut_w) // 2, cut_h, cut_w


class RandomHorizontalFlip(ImageTransform):
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_probability("p", p)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image[:, ::-1] if rng.random() < self.p else image


def draw_sides(
    area: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int]:
    """Sides of a rectangle: its share of `area` is drawn evenly from `scale`, and the second side
    over the first from `ratio`, evenly in its logarithm."""
    target = area * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(target / aspect)), round(math.sqrt(target * aspect))


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return from_pillow(to_pillow(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _room(crop: object, image: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """How far a crop of `size` can move down and to the right within `image`."""
    room_y, room_x = image.shape[0] - size[0], image.shape[1] - size[1]
    if room_y < 0 or room_x < 0:
        raise ShapeError(
            f"{crop!r}: the crop is larger than the image of {image.shape[0]} x {image.shape[1]} "
            "pixels (height x width)"
        )
    return room_y, room_x


def _cut(image: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    return image[top : top + size[0], left : left + size[1]]
