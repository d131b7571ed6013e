"""Bodies, legs and tails of cats and dogs in five poses, and the whole animal.

The frame is the picture's: -1..1 with the ground at about y = 0.88; side views look to the right.
"""

from collections.abc import Callable

import numpy as np

from tinyconv.data.drawn.canvas import (
    Canvas,
    Points,
    Random,
    closed_curve,
    ellipse,
    open_curve,
    ribbon,
    rotation,
    shade,
    symmetric_curve,
)
from tinyconv.data.drawn.fur import paint_fur
from tinyconv.data.drawn.heads import paint_head
from tinyconv.data.drawn.looks import Look

SITTING = symmetric_curve(
    [(0, -0.4), (0.3, -0.15), (0.42, 0.35), (0.46, 0.75), (0.2, 0.88), (0, 0.88)]
)
SITTING_SIDEWAYS = closed_curve(
    [(0.3, -0.32), (0.44, 0.05), (0.34, 0.5), (0.1, 0.86), (-0.42, 0.87), (-0.62, 0.56)],
    [(-0.46, 0.12), (-0.12, -0.26)],
)
STANDING = closed_curve(
    [(-0.66, 0.02), (-0.5, -0.26), (0, -0.22), (0.4, -0.32), (0.64, -0.05), (0.5, 0.26)],
    [(0, 0.2), (-0.46, 0.24)],
)
LYING = closed_curve(
    [(-0.78, 0.55), (-0.58, 0.2), (0, 0.16), (0.4, 0.14), (0.62, 0.4), (0.5, 0.8)],
    [(0, 0.86), (-0.6, 0.84)],
)
BUST = symmetric_curve([(0, 0.2), (0.45, 0.4), (0.72, 1.0), (0.8, 2.6), (0, 2.6)])

# Tails lead from the root at (0, 0) to the left and up.
TAILS = {
    "hook": open_curve([(0, 0), (-0.22, -0.06), (-0.3, -0.4), (-0.24, -0.75), (-0.42, -0.86)]),
    "wave": open_curve([(0, 0), (-0.3, 0.06), (-0.42, -0.25), (-0.3, -0.55), (-0.48, -0.8)]),
    "ground": open_curve([(0, 0), (-0.28, 0.08), (-0.52, 0.0), (-0.56, -0.2), (-0.4, -0.28)]),
    "arch": open_curve([(0, 0), (-0.14, -0.36), (-0.4, -0.5), (-0.6, -0.3), (-0.6, -0.08)]),
    "wag": open_curve([(0, 0), (-0.14, -0.14), (-0.24, -0.38)]),
    "curl": open_curve([(0, 0), (-0.18, -0.18), (-0.12, -0.4), (0.1, -0.38), (0.1, -0.2)]),
    "hang": open_curve([(0, 0), (-0.18, 0.04), (-0.28, 0.26), (-0.34, 0.36)]),
    "plume": open_curve([(0, 0), (-0.2, -0.08), (-0.34, -0.3), (-0.3, -0.48)]),
}
TAIL_WIDTHS = {  # at the root and at the tip
    "hook": (0.1, 0.07),
    "wave": (0.1, 0.07),
    "ground": (0.1, 0.08),
    "arch": (0.1, 0.07),
    "wag": (0.15, 0.07),
    "curl": (0.18, 0.12),
    "hang": (0.16, 0.08),
    "plume": (0.13, 0.26),
}


def paint_animal(canvas: Canvas, look: Look, rng: Random) -> tuple[Points, float]:
    """The whole animal. Returns where its head is: centre and radius in the canvas's units."""
    paint_body, (x, y), size = POSES[look.pose]
    flip = -1 if look.mirrored else 1
    offset = look.scale * np.array([flip * x, y]) @ rotation(look.angle)
    limit = 1 - (1.3 if look.profile else 0.9) * size * look.scale
    centre = np.clip(offset + look.at, -limit, limit)  # keeps the face in the picture
    figure = canvas.frame(centre - offset, (flip * look.scale, look.scale), look.angle)
    paint_body(figure, look, rng)
    if look.collar is not None:
        neck = figure.frame((x, y), size)
        band = open_curve([(-0.5, 0.66), (0.0, 0.86), (0.5, 0.66)])
        neck.shape(ribbon(band, 0.2, 0.2), look.collar, look.ink)
        neck.shape(ellipse(0, 1.0, 0.13, 0.13), (235, 200, 80), look.ink)
    width, height = look.head_size
    paint_head(figure.frame((x, y), (size * width, size * height), look.head_tilt), look, rng)
    return centre, size * look.scale


def paint_portrait(canvas: Canvas, look: Look, rng: Random) -> None:
    """Head and shoulders."""
    paint_fur(canvas, BUST * (look.body[1], 1), look, rng, tone=0.92)
    if look.light_chest:
        canvas.shape(ellipse(0, 0.95, 0.28, 0.42), look.light)


def paint_tail(canvas: Canvas, look: Look, x: float, y: float) -> None:
    """The tail, rooted at (x, y)."""
    path = TAILS[look.tail]
    start, end = TAIL_WIDTHS[look.tail]
    tail = canvas.frame((x, y), look.tail_size)
    tail.shape(ribbon(path, start, end), shade(look.fur, 0.9), look.ink)
    if look.pattern == "stripes":
        for k in range(4, len(path) - 2, 5):
            width = start + (end - start) * k / len(path)
            tail.shape(ribbon(path[k : k + 3], width, width), look.dark)
    elif look.light_paws:
        tail.shape(ribbon(path[-5:], end, end), look.light)


def paint_leg(
    canvas: Canvas,
    look: Look,
    top: tuple[float, float],
    foot: tuple[float, float],
    tone: float = 1.0,
) -> None:
    """A leg from its top to the foot, with a paw."""
    path = open_curve([top, ((top[0] + foot[0]) / 2 - 0.02, (top[1] + foot[1]) / 2), foot])
    thick = (0.15 if look.is_cat else 0.18) * look.body[1]
    outline = ribbon(path, 1.25 * thick, 0.85 * thick)
    canvas.shape(outline, shade(look.fur, tone))
    canvas.outline(outline[3:-3], look.ink)  # open at the top, where the leg joins the body
    paw = shade(look.light if look.light_paws else look.fur, tone)
    canvas.shape(ellipse(foot[0] + 0.03, foot[1], 0.6 * thick, 0.42 * thick), paw, look.ink)


def paint_sitting(canvas: Canvas, look: Look, rng: Random) -> None:
    """Sitting, seen from the front."""
    girth = look.body[1]
    paint_tail(canvas, look, -0.38 * girth, 0.76)
    paint_fur(canvas, SITTING * (girth, 1), look, rng)
    if look.light_chest:
        canvas.shape(ellipse(0, 0.2, 0.2 * girth, 0.34), look.light)
    for side in (-1, 1):
        haunch = canvas.frame((side * 0.38 * girth, 0.7), 0.2)
        haunch.shape(ellipse(0, 0, 0.9, 1.0), look.fur, look.ink)
    for side in (-1, 1):
        paint_leg(canvas, look, (side * 0.15, 0.3), (side * 0.15, 0.86))


def paint_sitting_sideways(canvas: Canvas, look: Look, rng: Random) -> None:
    """Sitting, seen from the side."""
    paint_tail(canvas, look, -0.52, 0.76)
    paint_leg(canvas, look, (0.26, 0.2), (0.4, 0.82), tone=0.8)
    paint_fur(canvas, SITTING_SIDEWAYS * (look.body[1] ** 0.5, 1), look, rng)
    if look.light_chest:
        canvas.shape(ellipse(0.3, 0.05, 0.1, 0.3), look.light)
    canvas.shape(ellipse(-0.26, 0.6, 0.3, 0.28), look.fur, look.ink)
    paw = look.light if look.light_paws else look.fur
    canvas.shape(ellipse(0.02, 0.84, 0.2, 0.08), paw, look.ink)
    paint_leg(canvas, look, (0.24, 0.2), (0.3, 0.86))


def paint_standing(canvas: Canvas, look: Look, rng: Random) -> None:
    """Standing or walking, seen from the side."""
    length, girth = look.body
    foot = 0.2 + 0.62 * look.legs
    step = rng.uniform(-0.12, 0.12, 4)
    paint_tail(canvas, look, -0.6 * length, -0.08)
    paint_leg(
        canvas, look, (-0.38 * length, 0.1), (-0.38 * length + step[0], foot - 0.04), tone=0.8
    )
    paint_leg(canvas, look, (0.4 * length, 0.1), (0.4 * length + step[1], foot - 0.04), tone=0.8)
    paint_leg(canvas, look, (-0.5 * length, 0.08), (-0.52 * length + step[2], foot))
    paint_leg(canvas, look, (0.48 * length, 0.08), (0.5 * length + step[3], foot))
    paint_fur(canvas, STANDING * (length, girth), look, rng)
    if look.light_chest:
        canvas.shape(ellipse(0.5 * length, 0.04, 0.1, 0.2 * girth), look.light)


def paint_lying(canvas: Canvas, look: Look, rng: Random) -> None:
    """Lying with the front paws forward, seen from the side."""
    paint_tail(canvas, look, -0.68, 0.66)
    paint_leg(canvas, look, (0.42, 0.72), (0.9, 0.78), tone=0.8)
    paint_fur(canvas, LYING, look, rng)
    canvas.shape(ellipse(-0.42, 0.58, 0.27, 0.26), look.fur, look.ink)
    paw = look.light if look.light_paws else look.fur
    canvas.shape(ellipse(-0.18, 0.82, 0.2, 0.08), paw, look.ink)
    paint_leg(canvas, look, (0.36, 0.74), (0.82, 0.83))


# Painter of the body, where the head goes and its size.
POSES: dict[str, tuple[Callable[[Canvas, Look, Random], None], tuple[float, float], float]] = {
    "portrait": (paint_portrait, (0.0, 0.0), 0.64),
    "sitting": (paint_sitting, (0.0, -0.42), 0.46),
    "sitting sideways": (paint_sitting_sideways, (0.22, -0.46), 0.42),
    "standing": (paint_standing, (0.6, -0.42), 0.4),
    "lying": (paint_lying, (0.5, 0.06), 0.42),
}
