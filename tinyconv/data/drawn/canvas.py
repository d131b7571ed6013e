"""Curves and a drawing surface with nested coordinate frames, shared by the drawn data sets."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Control = Sequence[tuple[float, float]]
Colour = tuple[int, int, int]
Random = np.random.Generator

_STEPS = 6  # points on the curve per control point
_TURN = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
_CIRCLE: Points = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@lru_cache
def _spline_matrix(count: int, closed: bool) -> Points:
    """Matrix that turns `count` control points into points on the Catmull-Rom curve through them.

    E. Catmull, R. Rom, "A class of local interpolating splines", 1974, with tension 1/2.
    """
    t = np.arange(_STEPS) / _STEPS
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    segments = count if closed else count - 1
    matrix = np.zeros((segments * _STEPS + (not closed), count))
    for segment in range(segments):
        for neighbour, weight in zip(range(segment - 1, segment + 3), weights, strict=True):
            # An open curve repeats its end points; a closed one goes round.
            column = neighbour % count if closed else min(max(neighbour, 0), count - 1)
            matrix[segment * _STEPS : (segment + 1) * _STEPS, column] += weight
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def closed_curve(*parts: Control) -> Points:
    """Smooth closed curve through the n points of all parts in turn, shape (6 n, 2)."""
    control = np.array([point for part in parts for point in part], dtype=np.float64)
    return _spline_matrix(len(control), True) @ control


def symmetric_curve(right: Control) -> Points:
    """Smooth closed curve through the points and their mirror images, the first and last excepted.

    The points lead down the right side, the first and the last at about x = 0.
    """
    return closed_curve(right, [(-x, y) for x, y in right[-2:0:-1]])


def open_curve(points: Control | Points) -> Points:
    """Smooth curve from the first to the last of n points, shape (6 (n - 1) + 1, 2)."""
    control = np.asarray(points, dtype=np.float64)
    return _spline_matrix(len(control), False) @ control


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Closed curve round the centre (x, y), shape (32, 2)."""
    return _CIRCLE * (rx, ry) + (x, y)


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """The four corners, shape (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def ribbon(path: Points, start: float, end: float) -> Points:
    """Outline of a band along the path, its width going evenly from `start` to `end`."""
    along = np.empty_like(path)
    along[1:-1] = path[2:] - path[:-2]
    along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along /= np.hypot(along[:, :1], along[:, 1:]) + 1e-12
    half = np.linspace(start / 2, end / 2, len(path))[:, None]
    side = np.hstack([-along[:, 1:], along[:, :1]]) * half
    first = path[0] - along[0] * start / 2
    last = path[-1] + along[-1] * end / 2
    return np.vstack([first, path + side, last, (path - side)[::-1]])


def rotation(angle: float) -> Points:
    """Matrix R with which `points @ R` turns points clockwise on the picture, angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1, towards black) or lighter (factor > 1, towards white)."""
    if factor <= 1.0:
        r, g, b = (int(channel * factor) for channel in colour)
    else:
        r, g, b = (int(255 - (255 - channel) * (2.0 - factor)) for channel in colour)
    return (r, g, b)


class Canvas:
    """A coordinate frame on a picture: x to the right, y down, the outermost frame spans -1..1.

    Every shape is a polygon of points in the frame's own units, so that a head is written down
    once and drawn anywhere, in any size, tilted or mirrored.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, matrix: Points, origin: Points, ink_width: float
    ) -> None:
        self.draw = draw
        self.matrix = matrix  # pixel = point @ matrix + origin
        self.origin = origin
        self.ink_width = ink_width  # of every outline, in pixels

    @classmethod
    def on(cls, image: Image.Image, ink_width: float = 0.0) -> "Canvas":
        """The outermost frame of a square picture; `ink_width` in its units."""
        half = image.width / 2
        return cls(ImageDraw.Draw(image), np.eye(2) * half, np.full(2, half), ink_width * half)

    def frame(
        self,
        at: ArrayLike = (0.0, 0.0),
        scale: float | tuple[float, float] = 1.0,
        angle: float = 0.0,
    ) -> "Canvas":
        """A frame inside this one: scaled (a negative x scale mirrors), turned, moved to `at`."""
        scale_x, scale_y = scale if isinstance(scale, tuple) else (scale, scale)
        matrix = np.array([[scale_x], [scale_y]]) * (rotation(angle) @ self.matrix)
        origin = np.asarray(at) @ self.matrix + self.origin
        return Canvas(self.draw, matrix, origin, self.ink_width)

    def shape(self, points: Points, fill: Colour, ink: Colour | None = None) -> None:
        """Closed polygon, filled and, with `ink`, outlined."""
        self.draw.polygon(self._pixels(points), fill=fill)
        if ink is not None:
            self.outline(np.vstack([points, points[:2]]), ink)

    def outline(self, points: Points, ink: Colour) -> None:
        """Open line as wide as every outline."""
        self.draw.line(self._pixels(points), fill=ink, width=max(1, round(self.ink_width)))

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """Open line of even width (frame units, at least one pixel)."""
        (a, b), (c, d) = self.matrix.tolist()
        pixels = width * abs(a * d - b * c) ** 0.5
        self.draw.line(self._pixels(points), fill=colour, width=max(1, round(pixels)))

    def _pixels(self, points: Points) -> list[float]:
        flat: list[float] = (points @ self.matrix + self.origin).ravel().tolist()
        return flat
