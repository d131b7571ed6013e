"""Drawn digits in the manner of MNIST: a ten-class data set that needs no download."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.drawn.canvas import Points, open_curve, rotation
from tinyconv.data.drawn.pictures import drawn_dataset

# Several ways of writing each digit. A stroke is a smooth curve through points x,y in hundredths
# (x to the right, y down, the middle at 0,0); "|" lifts the pen. Strokes that share an end point
# make a corner.
HANDWRITING = """
0: 0,-80 -40,-50 -46,10 -28,65 5,80 38,50 46,-10 32,-62 0,-80
0: 0,-80 -40,-50 -46,10 -28,65 5,80 38,50 44,-10 20,-68 -12,-72 -30,-50
0: 15,-80 -20,-45 -30,20 -10,75 20,45 30,-20 15,-80
1: 0,-80 0,0 0,80
1: -28,-45 -10,-60 5,-80 | 5,-80 3,0 0,80
1: -25,-50 0,-80 | 0,-80 0,80 | -32,80 32,78
2: -40,-45 -20,-75 20,-76 40,-42 20,5 -42,75 | -42,75 0,73 46,72
2: -40,-50 -5,-80 36,-50 20,5 -15,55 -42,65 -36,40 -10,50 20,74 48,62
2: -35,-62 0,-78 34,-60 26,-15 -40,75 | -40,75 -10,62 20,78 46,66
3: -38,-60 0,-80 34,-55 20,-18 -8,-5 | -8,-5 30,8 40,42 10,78 -42,62
3: -36,-72 36,-75 | 36,-75 -4,-15 | -4,-15 34,0 40,42 6,78 -40,62
3: -36,-55 -5,-80 32,-58 22,-22 -6,-6 0,-2 34,12 36,50 0,80 -40,55
4: -30,-75 -38,-30 -42,10 | -42,10 0,8 48,2 | 25,-70 22,0 18,80
4: 20,-80 -15,-35 -46,20 | -46,20 0,20 48,18 | 20,-80 20,0 20,80
4: -36,-70 -40,-20 -20,8 20,2 34,-30 | 38,-75 34,0 28,80
5: 40,-75 0,-74 -30,-72 | -30,-72 -36,-10 | -36,-10 5,-22 40,10 34,55 -2,80 -40,62
5: 42,-72 0,-76 -28,-60 -26,-20 10,-5 36,25 20,68 -15,80 -40,60
5: -28,-70 -30,-40 -32,-12 10,-15 38,20 20,66 -40,75 | -28,-72 10,-74 42,-78
6: 25,-80 -15,-45 -38,10 -30,62 5,80 36,52 25,12 -6,6 -34,35
6: -5,-80 -30,-30 -36,30 -15,76 22,70 32,35 8,12 -20,30 -26,55
6: 38,-60 10,-80 -25,-50 -40,15 -20,72 20,76 40,42 20,8 -15,10 -38,35
7: -42,-70 0,-72 42,-75 | 42,-75 10,0 -12,80
7: -42,-70 0,-74 40,-75 | 40,-75 10,-10 -5,80 | -20,0 10,-3 40,-5
7: -42,-45 -40,-75 | -40,-75 0,-66 40,-76 | 40,-76 15,-30 2,20 0,80
8: 30,-62 0,-80 -32,-58 -18,-20 20,12 38,48 5,80 -34,52 -16,10 20,-20 34,-52 20,-72
8: 0,-80 -30,-56 -26,-20 0,-5 27,-22 30,-56 0,-80 | 0,-5 -36,20 -34,60 0,80 35,60 36,20 0,-5
9: 32,-50 0,-80 -34,-52 -26,-12 6,-6 34,-42 | 34,-60 32,0 26,80
9: 34,-45 8,-80 -32,-60 -30,-20 0,-5 34,-42 34,10 20,66 -10,80 -36,60
9: 30,-55 2,-80 -30,-55 -20,-18 10,-15 32,-50 26,10 0,80
"""


def read_handwriting(text: str) -> list[list[list[Points]]]:
    """For each digit its ways of writing, each a list of strokes of points (n, 2) in -1..1."""
    writings: list[list[list[Points]]] = [[] for _ in range(10)]
    for line in text.strip().splitlines():
        digit, strokes = line.split(":")
        writings[int(digit)].append(
            [
                np.array([point.split(",") for point in stroke.split()], dtype=np.float64) / 100
                for stroke in strokes.split("|")
            ]
        )
    return writings


WRITINGS = read_handwriting(HANDWRITING)


def drawn_digits(count: int, size: int = 28, seed: int = 0) -> ArrayDataset:
    """`count` drawn digits, white on black; picture i shows i modulo 10.

    Images are uint8 (count, size, size, 1), labels 0..9 for "0".."9", `drawn` is True.
    Picture i depends only on seed, i and size, so a longer set begins with the shorter one.
    Raises ValueError for a count below 1, a negative seed and a size below 16.
    """
    return drawn_dataset(draw_digit, [str(digit) for digit in range(10)], count, size, 1, seed)


def draw_digit(label: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture of a digit, uint8 (size, size, 1)."""
    strokes = WRITINGS[label][rng.integers(len(WRITINGS[label]))]
    side = 4 * size  # scaled down at the end, for smooth edges
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    thickness = side * rng.uniform(0.05, 0.12)
    curves = [open_curve(stroke) for stroke in strokes]
    for curve in write_by_hand(curves, rng):
        draw_line(draw, curve * (side / 2) + side / 2, thickness)
    image = image.reduce(4)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(size / 28 * rng.uniform(0.2, 0.6)))
    picture = np.asarray(image, dtype=np.float32) * np.float32(rng.uniform(0.75, 1.0))
    noise = np.float32(rng.uniform(0, 12))
    picture += noise * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)[:, :, None]


def write_by_hand(curves: list[Points], rng: np.random.Generator) -> list[Points]:
    """The curves bent by two slow random waves per axis, slanted, turned, scaled and shifted.

    Every point moves by where it is, so strokes that meet still do.
    """
    frequency = rng.uniform(-4, 4, (2, 4))
    phase = rng.uniform(0, 2 * math.pi, 4)
    amplitude = rng.uniform(0, 0.06, 4)
    slant = np.array([(1.0, 0.0), (rng.uniform(-0.35, 0.2), 1.0)])
    size = np.diag(rng.uniform((0.65, 0.75), (1.15, 1.02)))
    matrix = size @ slant @ rotation(rng.normal(0, 0.1))
    shift = rng.uniform(-0.12, 0.12, 2)
    written = []
    for curve in curves:
        waves = amplitude * np.sin(curve @ frequency + phase)
        written.append((curve + waves[:, :2] + waves[:, 2:]) @ matrix + shift)
    return written


def draw_line(draw: ImageDraw.ImageDraw, points: Points, thickness: float) -> None:
    """A line with round ends through points in pixels."""
    draw.line(points.ravel().tolist(), fill=255, width=max(1, round(thickness)), joint="curve")
    r = thickness / 2
    for x, y in points[[0, -1]].tolist():
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
