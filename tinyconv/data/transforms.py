"""Changes of one image, under torchvision's names: resize, crop, flip, and chains of them.

A transform is called with an image (uint8 (H, W, C)) and a NumPy Generator, from which alone it
takes its randomness, and returns a uint8 (H', W', C) image, possibly a view of the one it got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from tinyconv.data.image import as_height_width
from tinyconv.errors import ShapeError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class Resize:
    """Resize to (height, width); one number is the new length of the shorter edge, the proportions
    kept. Bilinear and antialiased."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        as_height_width(size)
        self.size = size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width, channels = image.shape
        if not isinstance(self.size, int):
            height, width = self.size
        elif height < width:
            height, width = self.size, int(self.size * width / height)
        else:
            height, width = int(self.size * height / width), self.size
        pixels = image[:, :, 0] if channels == 1 else image
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        return np.array(resized).reshape(height, width, channels)

    def __repr__(self) -> str:
        return f"Resize(size={self.size})"


class CenterCrop:
    """Cut (height, width), or a square, out of the middle; ShapeError for a smaller image."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = as_height_width(size)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room_y, room_x = _room(self, image, self.size)
        return _cut(image, round(room_y / 2), round(room_x / 2), self.size)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomCrop:
    """Cut (height, width), or a square, out at a random place, after adding `padding` black pixels
    on every side; ShapeError for an image that is smaller even so."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0) -> None:
        if padding < 0:
            raise ValueError(f"padding is {padding}; expected 0 or more")
        self.size = as_height_width(size)
        self.padding = padding

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.padding:
            image = np.pad(image, ((self.padding,) * 2, (self.padding,) * 2, (0, 0)))
        room_y, room_x = _room(self, image, self.size)
        top, left = rng.integers(room_y + 1), rng.integers(room_x + 1)
        return _cut(image, int(top), int(left), self.size)

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class RandomHorizontalFlip:
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; expected a probability from 0 to 1")
        self.p = p

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image[:, ::-1] if rng.random() < self.p else image

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


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
