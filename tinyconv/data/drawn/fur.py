"""Fur with the pattern of an animal's coat."""

import numpy as np

from tinyconv.data.drawn.canvas import Canvas, Colour, Points, Random, ellipse, shade
from tinyconv.data.drawn.looks import Look


def paint_fur(canvas: Canvas, contour: Points, look: Look, rng: Random, tone: float = 1.0) -> None:
    """A part of the body, its pattern inside the contour; `tone` < 1 for parts in the shade."""
    canvas.shape(contour, shade(look.fur, tone))
    centre = contour.mean(axis=0)
    dark = shade(look.dark, tone)
    if look.pattern == "stripes":
        paint_stripes(canvas, contour, centre, dark, rng)
    elif look.pattern == "spots":
        paint_spots(canvas, contour, centre, dark, rng)
    elif look.pattern == "patches":
        paint_patch(canvas, contour, centre, dark, rng)
    canvas.outline(np.vstack([contour, contour[:2]]), look.ink)


def paint_stripes(
    canvas: Canvas, contour: Points, centre: Points, colour: Colour, rng: Random
) -> None:
    """Wedges from the upper edge towards the centre."""
    for k in range(1, len(contour) - 3, 5):
        if contour[k + 1, 1] < centre[1]:
            tip = contour[k + 1] + rng.uniform(0.3, 0.6) * (centre - contour[k + 1])
            canvas.shape(np.array([contour[k], contour[k + 2], tip]), colour)


def paint_spots(
    canvas: Canvas, contour: Points, centre: Points, colour: Colour, rng: Random
) -> None:
    """Round spots between the centre and the edge."""
    count = rng.integers(5, 11)
    edge = contour[rng.integers(len(contour), size=count)]
    places = centre + rng.uniform(0.2, 0.8, (count, 1)) * (edge - centre)
    radii = rng.uniform(0.04, 0.09, count) * np.ptp(contour[:, 0])
    for (x, y), r in zip(places, radii, strict=True):
        canvas.shape(ellipse(x, y, r, r), colour)


def paint_patch(
    canvas: Canvas, contour: Points, centre: Points, colour: Colour, rng: Random
) -> None:
    """One large patch at the edge."""
    length = int(len(contour) * rng.uniform(0.25, 0.45))
    arc = np.roll(contour, rng.integers(len(contour)), axis=0)[:length]
    depth = rng.uniform(0.5, 1.1) * np.sin(np.linspace(0, np.pi, length))[:, None]
    canvas.shape(np.vstack([arc, (arc + depth * (centre - arc))[::-1]]), colour)
