"""Rotation, shift, zoom and shear: each pixel of the result is looked up in the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tinyconv.data.transforms.check import (
    Numbers,
    as_colour,
    as_interpolation,
    as_numbers,
    as_range,
    as_spread,
    for_channels,
)
from tinyconv.data.transforms.compose import ImageTransform
from tinyconv.data.transforms.pillow import RESAMPLING, from_pillow, to_pillow

Pair = tuple[float, float]


class RandomRotation(ImageTransform):
    """Turn by an angle drawn evenly from `degrees`: (least, most), or a number d for (-d, d).

    Positive angles turn anticlockwise, about `center` (x, y), by default the middle. `expand`
    makes the image as large as the turned one; `fill` is the colour where there was no image.
    """

    def __init__(
        self,
        degrees: Numbers,
        interpolation: str = "nearest",
        expand: bool = False,
        center: Pair | None = None,
        fill: Numbers = 0,
    ) -> None:
        self.degrees = as_spread("degrees", degrees, 0, -math.inf, math.inf)
        self.interpolation = as_interpolation(interpolation)
        self.expand = expand
        self.center = center
        self.fill = as_colour("fill", fill)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = rng.uniform(*self.degrees)
        return rotate(image, angle, self.interpolation, self.expand, self.center, self.fill)


class RandomAffine(ImageTransform):
    """Turn, shift, zoom and shear at once, each by an amount drawn evenly.

    degrees     angle, clockwise: (least, most), or a number d for (-d, d)
    translate   (x, y): the largest shift as a share of width and height
    scale       (least, most) zoom
    shear       angles in degrees along x: (least, most), or a number s for (-s, s);
                four numbers: least and most along x, then along y

    `center` (x, y) stays in place but for the shift, by default the middle; `fill` is the colour
    where there was no image.
    """

    def __init__(
        self,
        degrees: Numbers,
        translate: Pair | None = None,
        scale: Pair | None = None,
        shear: Numbers | None = None,
        interpolation: str = "nearest",
        fill: Numbers = 0,
        center: Pair | None = None,
    ) -> None:
        shares = as_numbers(translate)
        if translate is not None and not (
            len(shares) == 2 and all(0 <= share <= 1 for share in shares)
        ):
            raise ValueError(f"translate is {translate!r}; expected two shares (x, y) from 0 to 1")
        self.degrees = as_spread("degrees", degrees, 0, -math.inf, math.inf)
        self.translate = translate
        self.scale = None if scale is None else as_range("scale", scale, above=0)
        self.shear = None if shear is None else _as_shear(shear)
        self.interpolation = as_interpolation(interpolation)
        self.fill = as_colour("fill", fill)
        self.center = center

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle, translate, scale, shear = self.draw(image.shape[0], image.shape[1], rng)
        how = (self.interpolation, self.fill, self.center)
        return affine(image, angle, translate, scale, shear, *how)

    def draw(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[float, tuple[int, int], float, Pair]:
        """(angle, (right, down) in whole pixels, zoom, (shear along x, along y))."""
        angle = rng.uniform(*self.degrees)
        share_x, share_y = self.translate or (0, 0)
        right = round(rng.uniform(-share_x * width, share_x * width))
        down = round(rng.uniform(-share_y * height, share_y * height))
        scale = rng.uniform(*(self.scale or (1, 1)))
        along_x, along_y = self.shear or ((0, 0), (0, 0))
        return angle, (right, down), scale, (rng.uniform(*along_x), rng.uniform(*along_y))


def rotate(
    image: np.ndarray,
    angle: float,
    interpolation: str = "nearest",
    expand: bool = False,
    center: Pair | None = None,
    fill: Numbers = 0,
) -> np.ndarray:
    """The image turned anticlockwise by `angle` degrees; see RandomRotation."""
    turned = to_pillow(image).rotate(
        angle, RESAMPLING[interpolation], expand, center, fillcolor=_fill(fill, image)
    )
    return from_pillow(turned)


def affine(
    image: np.ndarray,
    angle: float = 0,
    translate: tuple[int, int] = (0, 0),
    scale: float = 1,
    shear: Pair = (0, 0),
    interpolation: str = "nearest",
    fill: Numbers = 0,
    center: Pair | None = None,
) -> np.ndarray:
    """The image sheared, zoomed, turned and shifted, in that order; see RandomAffine."""
    height, width, _ = image.shape
    forward = affine_matrix(center or (width / 2, height / 2), angle, translate, scale, shear)
    backward = np.linalg.inv(forward)[:2].ravel()  # Pillow asks where each pixel comes from
    moved = to_pillow(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(backward.tolist()),
        RESAMPLING[interpolation],
        fillcolor=_fill(fill, image),
    )
    return from_pillow(moved)


def affine_matrix(
    center: Pair, angle: float, translate: Pair, scale: float, shear: Pair
) -> np.ndarray:
    """The 3 x 3 matrix that takes a point (x, y, 1) to where `affine` moves it; y points down.

    T(center + translate) R(angle) S(scale) Hy(shear y) Hx(shear x) T(-center), with T a shift,
    R a clockwise turn, S a zoom, and Hx(a), Hy(a) = [[1, -tan a], [0, 1]], [[1, 0], [-tan a, 1]].
    """
    turn, along_x, along_y = map(math.radians, (angle, *shear))
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    turn_and_zoom = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shear_y = np.array([[1, 0, 0], [-math.tan(along_y), 1, 0], [0, 0, 1]])
    shear_x = np.array([[1, -math.tan(along_x), 0], [0, 1, 0], [0, 0, 1]])
    there = _shift(center[0] + translate[0], center[1] + translate[1])
    return there @ turn_and_zoom @ shear_y @ shear_x @ _shift(-center[0], -center[1])


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _as_shear(shear: Numbers) -> tuple[Pair, Pair]:
    """((least, most) along x, (least, most) along y)"""
    if isinstance(shear, Sequence) and len(shear) == 4:
        return as_range("shear", shear[:2], -90, 90), as_range("shear", shear[2:], -90, 90)
    return as_spread("shear", shear, 0, -90, 90), (0, 0)


def _fill(fill: Numbers, image: np.ndarray) -> int | tuple[int, ...]:
    values = for_channels("fill", fill, image.shape[2])
    return values if len(values) > 1 else values[0]
