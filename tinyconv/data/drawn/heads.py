"""Heads of cats and dogs from the front and from the side.

One unit is about half the width of the head; (0, 0) is its middle. Side views look to the right.
"""

import numpy as np

from tinyconv.data.drawn.canvas import (
    Canvas,
    Random,
    closed_curve,
    ellipse,
    open_curve,
    shade,
    symmetric_curve,
)
from tinyconv.data.drawn.fur import paint_fur
from tinyconv.data.drawn.looks import Look

WHITE, BLACK = (255, 255, 255), (18, 16, 18)
PINK, TONGUE = (230, 160, 158), (222, 98, 112)

CAT_FRONT = symmetric_curve(
    [(0, -0.82), (0.5, -0.76), (0.88, -0.35), (1.02, 0.18), (0.72, 0.66), (0, 0.84)]
)
DOG_FRONT = symmetric_curve(
    [(0, -0.92), (0.5, -0.84), (0.84, -0.42), (0.82, 0.1), (0.56, 0.62), (0, 0.86)]
)
CAT_SIDE = closed_curve(
    [(-0.85, 0.05), (-0.72, -0.55), (-0.1, -0.84), (0.45, -0.68), (0.72, -0.28), (0.98, 0.02)],
    [(1.0, 0.26), (0.78, 0.48), (0.3, 0.68), (-0.45, 0.66)],
)
DOG_SIDE = closed_curve(
    [(-0.8, 0.0), (-0.66, -0.6), (-0.1, -0.86), (0.38, -0.72), (0.62, -0.34), (0.95, -0.22)],
    [(1.32, -0.2), (1.48, 0.04), (1.4, 0.34), (1.1, 0.52), (0.55, 0.6), (0.2, 0.76), (-0.45, 0.7)],
)

# Ears: (0, 0) is the root, drawn for the side at x > 0.
EARS = {
    "pointed": np.vstack(
        [
            open_curve([(-0.36, 0.05), (-0.14, -0.48), (0.16, -0.9)]),
            open_curve([(0.16, -0.9), (0.36, -0.42), (0.4, 0.3)]),
        ]
    ),
    "floppy": closed_curve(
        [(-0.2, 0.0), (0.12, -0.2), (0.42, 0.1), (0.5, 0.62), (0.3, 1.0), (0.06, 0.74)]
    ),
    "long": closed_curve(
        [(-0.15, -0.02), (0.15, -0.16), (0.38, 0.3), (0.52, 1.1), (0.26, 1.5), (0.0, 1.1)]
    ),
    "button": closed_curve(
        [(-0.3, 0.0), (0.05, -0.42), (0.4, -0.3), (0.62, 0.2), (0.46, 0.26), (0.25, 0.0)]
    ),
    "pricked": closed_curve(
        [(-0.3, 0.2), (-0.2, -0.5), (0.06, -1.05), (0.3, -0.6), (0.36, 0.2), (0.0, 0.3)]
    ),
    "bat": closed_curve(
        [(-0.26, 0.2), (-0.3, -0.4), (0.0, -0.9), (0.34, -0.62), (0.4, 0.1), (0.1, 0.3)]
    ),
}
UPRIGHT = ("pointed", "pricked", "bat")


def paint_head(canvas: Canvas, look: Look, rng: Random) -> None:
    """The head of the look's species and view, in the canvas's frame."""
    if look.is_cat:
        (paint_cat_side if look.profile else paint_cat_front)(canvas, look, rng)
    else:
        (paint_dog_side if look.profile else paint_dog_front)(canvas, look, rng)


def paint_ear(canvas: Canvas, look: Look, x: float, y: float, side: int, tone: float = 1) -> None:
    """An ear rooted at (x, y); side 1 leans to the right, -1 is its mirror image."""
    width, height = look.ear_size
    ear = canvas.frame((x, y), (side * width, height), side * look.ear_tilt)
    colour = shade(look.dark if look.dark_ears else look.fur, tone)
    if look.ear in UPRIGHT:
        ear.shape(EARS[look.ear], colour, look.ink)
        inner = ear.frame((0.04, 0.02), 0.6)
        inner.shape(EARS[look.ear], PINK if look.pink_ears else shade(look.dark, 0.8 * tone))
    else:
        ear.shape(EARS[look.ear], colour if look.dark_ears else shade(colour, 0.84), look.ink)


def paint_marks(canvas: Canvas, look: Look, x: float, y: float) -> None:
    """Blaze and eye patch of a face whose eyes are at (-x, y) and (x, y)."""
    if look.blaze:
        blaze = symmetric_curve([(0, -0.84), (0.1, -0.4), (0.2, 0.4), (0, 0.45)])
        canvas.shape(blaze, look.light)
    if look.eye_patch:
        canvas.shape(ellipse(x, y, 0.33, 0.38), look.dark)


def paint_eye(canvas: Canvas, look: Look, x: float, y: float, rx: float, ry: float) -> None:
    """An eye at (x, y); a sleepy one is a closed lid."""
    if look.sleepy:
        lid = open_curve([(x - rx, y - 0.2 * ry), (x, y + 0.5 * ry), (x + rx, y - 0.2 * ry)])
        canvas.line(lid, 0.07, BLACK)
        return
    canvas.shape(ellipse(x, y, rx + 0.035, ry + 0.035), BLACK)
    canvas.shape(ellipse(x, y, rx, ry), look.eyes)
    pupil = 0.72 * ry
    canvas.shape(ellipse(x, y, min(pupil * look.pupil, 0.8 * rx), pupil), BLACK)
    canvas.shape(ellipse(x + 0.25 * rx, y - 0.4 * ry, 0.28 * rx, 0.28 * rx), WHITE)


def paint_whiskers(canvas: Canvas, look: Look, x: float, y: float, length: float) -> None:
    """Three hairs from (x, y), to the right for a positive length."""
    colour = WHITE if sum(look.fur) < 420 else (70, 62, 60)
    for slope in (-0.22, 0.0, 0.22):
        hair = [(x, y + 0.3 * slope), (x + 0.5 * length, y + slope * 0.9), (x + length, y + slope)]
        canvas.line(open_curve(hair), 0.025, colour)


def paint_cat_front(canvas: Canvas, look: Look, rng: Random) -> None:
    """Wide face, pointed ears, almond eyes, a small nose over two puffs, whiskers."""
    for side in (-1, 1):
        paint_ear(canvas, look, side * 0.56, -0.55, side)
    paint_fur(canvas, CAT_FRONT, look, rng)
    paint_marks(canvas, look, 0.43, -0.1)
    puff = look.light if look.light_muzzle else shade(look.fur, 1.12)
    ink = shade(look.ink, 0.7)
    m = look.muzzle
    canvas.shape(ellipse(0, 0.52, 0.2 * m, 0.18), puff)
    for side in (-1, 1):
        canvas.shape(ellipse(side * 0.19 * m, 0.36, 0.25 * m, 0.19 * m), puff)
        paint_eye(canvas, look, side * 0.43, -0.1, 0.22 * look.eye_size, 0.23 * look.eye_size)
    for side in (-1, 1):
        smile = [(0, 0.34), (side * 0.06, 0.46), (side * 0.2, 0.48), (side * 0.3, 0.4)]
        canvas.line(open_curve(smile), 0.045, ink)
        paint_whiskers(canvas, look, side * 0.32 * m, 0.34, side * 0.95)
    canvas.shape(closed_curve([(-0.13, 0.19), (0.13, 0.19), (0.0, 0.34)]), look.nose)


def paint_dog_front(canvas: Canvas, look: Look, rng: Random) -> None:
    """Long face, ears by breed, round eyes, a big nose on a heavy muzzle, perhaps a tongue."""
    if look.ear in UPRIGHT:
        for side in (-1, 1):
            paint_ear(canvas, look, side * 0.56, -0.62, side)
    paint_fur(canvas, DOG_FRONT, look, rng)
    paint_marks(canvas, look, 0.36, -0.2)
    if look.ear not in UPRIGHT:
        for side in (-1, 1):
            paint_ear(canvas, look, side * 0.58, -0.6, side)
    m = look.muzzle
    for side in (-1, 1):
        paint_eye(canvas, look, side * 0.36, -0.2, 0.15 * look.eye_size, 0.17 * look.eye_size)
    if look.tongue:
        tongue = symmetric_curve([(0, 0.7), (0.17, 0.75), (0.15, 1.15), (0, 1.24)])
        canvas.shape(tongue, TONGUE, look.ink)
    snout = look.light if look.light_muzzle else shade(look.fur, 0.9)
    jowls = [(0, 0.04), (0.3 * m, 0.14), (0.52 * m, 0.52), (0.34 * m, 0.88), (0, 0.84)]
    canvas.shape(symmetric_curve(jowls), snout, look.ink)
    ink = shade(look.ink, 0.7)
    canvas.line(np.array([(0.0, 0.3), (0.0, 0.6)]), 0.05, ink)
    for side in (-1, 1):
        smile = [(0, 0.6), (side * 0.16, 0.7), (side * 0.36 * m, 0.6)]
        canvas.line(open_curve(smile), 0.055, ink)
    paint_dog_nose(canvas, look, 0, 0.24, m)


def paint_dog_nose(canvas: Canvas, look: Look, x: float, y: float, size: float) -> None:
    """A broad shiny nose."""
    canvas.shape(ellipse(x, y, 0.25 * size, 0.18 * size), look.nose)
    canvas.shape(ellipse(x - 0.06, y - 0.07 * size, 0.08, 0.04), shade(look.nose, 1.5))


def paint_cat_side(canvas: Canvas, look: Look, rng: Random) -> None:
    """Round skull, two pointed ears, hardly any snout."""
    paint_ear(canvas, look, 0.3, -0.6, 1, tone=0.85)
    paint_fur(canvas, CAT_SIDE, look, rng)
    paint_ear(canvas, look, -0.22, -0.56, -1)
    m = look.muzzle
    canvas.shape(
        ellipse(0.78, 0.28, 0.24 * m, 0.19 * m),
        look.light if look.light_muzzle else shade(look.fur, 1.12),
    )
    paint_eye(canvas, look, 0.42, -0.14, 0.17 * look.eye_size, 0.22 * look.eye_size)
    canvas.line(open_curve([(0.98, 0.16), (0.9, 0.34), (0.7, 0.38)]), 0.045, shade(look.ink, 0.7))
    canvas.shape(closed_curve([(0.86, -0.02), (1.04, 0.02), (0.97, 0.16)]), look.nose)
    paint_whiskers(canvas, look, 0.76, 0.26, 0.7)
    paint_whiskers(canvas, look, 0.66, 0.28, -0.8)


def paint_dog_side(canvas: Canvas, look: Look, rng: Random) -> None:
    """Skull with a long snout, a nose at its tip, one ear in full view."""
    snout = 0.5 + 0.5 * look.muzzle
    face = canvas.frame((0.5, 0.0), (snout, 1))  # the part that a longer snout stretches
    if look.tongue:
        tongue = closed_curve([(0.35, 0.4), (0.65, 0.38), (0.7, 0.75), (0.55, 0.92), (0.4, 0.72)])
        face.shape(tongue, TONGUE, look.ink)
    if look.ear in UPRIGHT:
        paint_ear(canvas, look, 0.16, -0.66, 1, tone=0.85)
    contour = DOG_SIDE + np.maximum(DOG_SIDE - 0.5, 0) * (snout - 1, 0)
    paint_fur(canvas, contour, look, rng)
    if look.light_muzzle:
        face.shape(ellipse(0.5, 0.2, 0.42, 0.26), look.light)
    smile = open_curve([(0.86, 0.3), (0.6, 0.38), (0.3, 0.34), (0.1, 0.18)])
    face.line(smile, 0.055, shade(look.ink, 0.7))
    paint_eye(canvas, look, 0.34, -0.3, 0.14 * look.eye_size, 0.17 * look.eye_size)
    paint_dog_nose(face, look, 0.88, -0.1, 0.85)
    paint_ear(canvas, look, -0.2, -0.56, -1)
