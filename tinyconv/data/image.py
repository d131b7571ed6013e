"""One image file into one uint8 array, RGB or grey, whatever the file holds."""

from __future__ import annotations

import logging
import re
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinyconv.data.dataset import PathLike, check_file
from tinyconv.errors import DataError

# Only these are tried, whatever a file is called: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # 256 MiB of RGB, as Pillow's own limit: a small file may claim any size

_ORIENTATION = 0x0112  # the EXIF tag, and what brings each of its values upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Without a handler of its own, what Pillow logs about a damaged file would go to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_PILLOW_SILENT = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def read_image(
    path: PathLike, size: int | tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """The image in the file `path` as uint8 (H, W, channels): 3 for RGB, 1 for grey.

    It is turned upright by its EXIF orientation; grey, palette and CMYK become RGB, 16-bit grey is
    scaled to 8 bits, transparency is laid on white, and of an animation the first frame is taken.
    `size` (H, W), or one number for a square, resizes without keeping the proportions (bilinear,
    antialiased). Raises DataError for anything that is not a whole image of one of FORMATS, and
    for more than MAX_PIXELS before decoding.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 1 (grey) or 3 (RGB)")
    height_width = None if size is None else as_height_width(size)
    path = check_file(path)
    _silence_pillow()
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            upright = _decode(image, height_width)
    except Exception as error:  # Pillow's readers raise whatever broken bytes lead them to
        raise DataError(f"{path}: {_reason(error)}") from error
    return np.array(upright) if channels == 3 else np.array(upright.convert("L"))[:, :, None]


def as_height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """`size` as (height, width), one number meaning a square; ValueError where it is no size."""
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(f"size is {size!r}; expected a positive whole number or (height, width)")
    return pair


def _decode(image: Image.Image, height_width: tuple[int, int] | None) -> Image.Image:
    if 0 in image.size:
        raise DataError(f"an image of {image.width} x {image.height} pixels")
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(f"{image.width} x {image.height}"))
    if height_width is not None:
        # A JPEG can be shrunk by 2, 4 or 8 while it is decoded. Stopping at twice the wanted size
        # leaves the last halving to the resampling, so that the result hardly differs.
        image.draft(None, (2 * max(height_width), 2 * max(height_width)))
    image.load()
    rgb = _to_rgb(image)
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
    if height_width is not None:
        rgb = rgb.resize(height_width[::-1], Image.Resampling.BILINEAR)
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    # 16-bit grey: convert("RGB") would clip at 255 instead of scaling.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.array(image, dtype=np.uint32)
        if "transparency" in image.info:
            values[values == image.info["transparency"]] = 65535
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError("32-bit pixels, whose black and white are unknown; save it with 8 bits")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata is no reason to refuse whole pixels
        return 1
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"not a readable image ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("its header claims more than twice as many")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged image: {str(error) or type(error).__name__}"


def _too_large(found: str) -> str:
    return f"too many pixels ({found}); at most {MAX_PIXELS:,} are decoded"


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files, which cannot be told apart from one another.

    warnings.catch_warnings cannot do it: it is not safe in threads. The filter is added once and
    stays, since every change of the filters makes all warnings of a program appear anew.
    """
    if _PILLOW_SILENT not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
