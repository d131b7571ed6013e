"""What surrounds a drawn animal: background, things in front of it, light, blur and noise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tinyconv.data.drawn.canvas import Canvas, Colour, Points, Random, ellipse, rectangle, shade

TUFT = np.array([(-0.6, 0), (-1, -2), (0, -0.6), (0.8, -2.4), (0.6, 0)])
THINGS = (  # that lie about: a ball, a box, a triangle, a stick
    ellipse(0, 0, 1, 1),
    rectangle(-1, -0.7, 1, 0.7),
    np.array([(-0.8, 0.6), (0.0, -1.0), (0.8, 0.6)]),
    rectangle(-2, -0.15, 2, 0.15),
)


def any_colour(rng: Random) -> Colour:
    """A colour of any brightness and hue, seldom a glaring one."""
    r, g, b = np.clip(rng.integers(35, 225) + rng.normal(0, 38, 3), 0, 255).astype(int).tolist()
    return (r, g, b)


def near(colour: Colour, rng: Random, spread: int = 15) -> Colour:
    """The colour, each channel moved by at most `spread`."""
    r, g, b = np.clip(colour + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return (r, g, b)


def unlike(colour: Colour, rng: Random) -> Colour:
    """A random colour of clearly different brightness, so that the animal stands out."""
    while True:
        other = any_colour(rng)
        if abs(sum(other) - sum(colour)) > 110:
            return other


def _stretch(small: NDArray[np.uint8], size: int) -> Image.Image:
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def _plain(size: int, colour: Colour, rng: Random) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def _gradient(size: int, colour: Colour, rng: Random) -> Image.Image:
    corners = np.array([near(colour, rng, 45) for _ in range(4)], dtype=np.uint8)
    return _stretch(corners.reshape(2, 2, 3), size)


def _texture(size: int, colour: Colour, rng: Random) -> Image.Image:
    rows, columns = rng.integers(3, 28, 2)
    grey = rng.integers(-35, 36, (rows, columns, 1)) + rng.integers(-12, 13, (rows, columns, 3))
    return _stretch(np.clip(colour + grey, 0, 255).astype(np.uint8), size)


def _outdoors(size: int, colour: Colour, rng: Random) -> Image.Image:
    """Sky, hills, clouds or a sun, grass with tufts."""
    sky = near((140, 190, 230), rng, 45)
    grass = near((95, 150, 75), rng, 40)
    image = _stretch(np.array([[sky], [shade(sky, 1.35)]], dtype=np.uint8), size)
    canvas = Canvas.on(image)
    horizon = rng.uniform(-0.2, 0.5)
    if rng.random() < 0.4:
        x, y, r = rng.uniform((-0.9, -0.9, 0.1), (0.9, -0.4, 0.2))
        canvas.shape(ellipse(x, y, r, r), (250, 225, 120))
    for x, y, r in rng.uniform((-1, -0.95, 0.08), (1, -0.3, 0.25), (rng.integers(0, 4), 3)):
        canvas.shape(ellipse(x, y, 2 * r, r), shade(sky, 1.6))
    for x, r in rng.uniform((-1, 0.2), (1, 0.7), (rng.integers(0, 4), 2)):
        canvas.shape(ellipse(x, horizon + 0.1, r, 0.8 * r), shade(grass, rng.uniform(0.6, 0.9)))
    canvas.shape(rectangle(-1, horizon, 1, 1), grass)
    for x, y in rng.uniform((-1, horizon), (1, 1), (rng.integers(3, 14), 2)):
        canvas.frame((x, y), 0.05).shape(TUFT, shade(grass, rng.uniform(0.65, 1.25)))
    return image


def _room(size: int, colour: Colour, rng: Random) -> Image.Image:
    """Wall with a stripe pattern, a window or picture, floor and rug."""
    image = Image.new("RGB", (size, size), colour)
    canvas = Canvas.on(image)
    if rng.random() < 0.4:
        step = rng.uniform(0.15, 0.5)
        for x in np.arange(-1, 1, step):
            canvas.shape(rectangle(x, -1, x + step / 2, 1), shade(colour, 1.12))
    if rng.random() < 0.6:
        x, y, w, h = rng.uniform((-1, -1, 0.3, 0.3), (0.6, -0.4, 0.8, 0.8))
        pane = rectangle(x, y, x + w, y + h)
        canvas.shape(pane, any_colour(rng))
        canvas.line(np.vstack([pane, pane[:1]]), 0.05, any_colour(rng))
    floor, y = near((150, 120, 95), rng, 50), rng.uniform(0.2, 0.75)
    canvas.shape(rectangle(-1, y, 1, 1), floor)
    canvas.line(np.array([(-1.0, y), (1.0, y)]), 0.04, shade(floor, 0.7))
    if rng.random() < 0.5:
        canvas.shape(ellipse(rng.uniform(-0.5, 0.5), 0.9, 0.8, 0.16), any_colour(rng))
    return image


def _clutter(size: int, colour: Colour, rng: Random) -> Image.Image:
    """A heap of balls, boxes, triangles and bands."""
    image = _gradient(size, colour, rng)
    canvas = Canvas.on(image)
    for x, y, r, turn in rng.uniform((-1, -1, 0.08, 0), (1, 1, 0.4, 6.3), (rng.integers(3, 9), 4)):
        thing = canvas.frame((x, y), (r, r * rng.uniform(0.4, 1)), turn)
        thing.shape(THINGS[rng.integers(len(THINGS))], near(colour, rng, 60))
    return image


_BACKGROUNDS: tuple[Callable[[int, Colour, Random], Image.Image], ...] = (
    _plain,
    _gradient,
    _texture,
    _outdoors,
    _room,
    _clutter,
)


def paint_background(size: int, animal: Colour, rng: Random) -> Image.Image:
    """Square RGB picture of one of six kinds, mostly of another brightness than the animal."""
    kind = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
    return kind(size, unlike(animal, rng), rng)


def _post(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    half = rng.uniform(0.05, 0.13)
    canvas.shape(rectangle(x - half, -1, x + half, 1), any_colour(rng))


def _ball(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    tone = any_colour(rng)
    r = rng.uniform(0.15, 0.3)
    y = max(y, 1 - 1.5 * r)
    canvas.shape(ellipse(x, y, r, r), tone)
    canvas.shape(ellipse(x - 0.3 * r, y - 0.35 * r, 0.3 * r, 0.22 * r), shade(tone, 1.5))


def _ledge(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    tone = any_colour(rng)
    y = max(y, rng.uniform(0.55, 0.85))
    canvas.shape(rectangle(-1, y, 1, 1), tone)
    canvas.shape(rectangle(-1, y, 1, y + 0.05), shade(tone, 1.3))


def _grass(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    green = near((85, 145, 70), rng, 40)
    for root in rng.uniform(-1, 1, rng.integers(5, 16)):
        lean, height = rng.uniform((-0.12, 0.2), (0.12, 0.5))
        blade = np.array([(root - 0.04, 1), (root + lean, 1 - height), (root + 0.04, 1)])
        canvas.shape(blade, shade(green, rng.uniform(0.75, 1.2)))


_FOREGROUNDS = (_post, _ball, _ledge, _grass)


def paint_foreground(canvas: Canvas, head: Points, radius: float, rng: Random) -> None:
    """A post, ball, ledge or grass before the animal, beside or below its head."""
    side = 1 if rng.random() < 0.5 else -1
    beside = head[0] + side * radius * rng.uniform(1.1, 1.6)
    below = head[1] + radius * rng.uniform(1.1, 1.6)
    kind = _FOREGROUNDS[rng.integers(len(_FOREGROUNDS))]
    kind(canvas, beside, below, rng)


def photograph(image: Image.Image, size: int, rng: Random) -> NDArray[np.uint8]:
    """Scale down to size x size; uneven light, contrast, blur and pixel noise as a camera's."""
    image = image.reduce(image.width // size)
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(size / 64 * rng.uniform(0.2, 0.6)))
    contrast, brightness = rng.uniform((0.7, -30), (1.15, 30))
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    slope_y, slope_x = rng.uniform(-0.2, 0.2, 2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = contrast * (1 + slope_y * ramp[:, None] + slope_x * ramp)
    picture = np.asarray(image) * (light[:, :, None] * tint)
    picture += 128 * (1 - contrast) + brightness
    if rng.random() < 0.6:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        picture += rng.uniform(0, 10) * noise
    return np.clip(picture, 0, 255).astype(np.uint8)
