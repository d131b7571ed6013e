"""read_image against pictures that Pillow wrote, and against files that are none."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tinyconv.data.image import MAX_PIXELS, read_image
from tinyconv.errors import DataError

RNG = np.random.default_rng(0)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without fine detail: every channel another ramp, every corner another colour."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return (np.stack([x, y, 1 - x * y], axis=2) * 255).astype(np.uint8)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims width x height grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    )


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The triangle filter by its formula: weight 1 - |distance| / scale, scale >= 1."""

    def weights(old: int, new: int) -> np.ndarray:
        scale = old / new
        table = np.zeros((new, old))
        for i in range(new):
            for j in range(old):
                distance = abs((j + 0.5) - (i + 0.5) * scale) / max(scale, 1)
                table[i, j] = max(0.0, 1 - distance)
        return table / table.sum(axis=1, keepdims=True)

    vertical, horizontal = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ih,jw,hwc->ijc", vertical, horizontal, image.astype(float))


# What comes out right


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_lossless_formats_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, pixels)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.jpg")), pixels)


@pytest.mark.parametrize("size", [(5, 9), (20, 31), (13, 4)])
def test_size_squashes_with_an_antialiased_triangle_filter(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = RNG.integers(0, 256, (16, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", size)
    assert image.shape == (*size, 3)
    assert np.abs(image - resized(pixels, *size)).max() <= 1.5  # two roundings to whole levels


def test_one_number_is_a_square(tmp_path: Path) -> None:
    Image.fromarray(smooth(10, 20)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 6).shape == (6, 6, 3)


@pytest.mark.parametrize("size", [0, -3, (4, 0), (1, 2, 3), 2.5])
def test_a_size_that_is_none(tmp_path: Path, size: object) -> None:
    with pytest.raises(ValueError, match="size is"):
        read_image(tmp_path / "a.png", size)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_shrunk_while_decoding_hardly_differs(tmp_path: Path, mode: str) -> None:
    Image.fromarray(smooth(600, 900)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    whole = Image.open(tmp_path / "a.jpg").convert("RGB")
    expected = np.asarray(whole.resize((50, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg", (40, 50)) - expected).max() <= 3


# EXIF 2.32, 4.6.4: where row 0 and column 0 of the stored picture belong in the upright one.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = smooth(16, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "webp":
        options = {"lossless": True}
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    image = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert image.shape == UPRIGHT[orientation](stored).shape
    assert np.abs(image - UPRIGHT[orientation](stored)).max() <= (8 if suffix == "jpg" else 0)


def test_exif_orientation_with_size_keeps_height_and_width(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(300, 500)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = resized(UPRIGHT[6](smooth(300, 500)), 30, 20)
    assert np.abs(read_image(tmp_path / "a.jpg", (30, 20)) - expected).max() <= 6


@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 256 * 3).astype(np.uint16).reshape(3, 256)
    path = tmp_path / f"a.{kind.split()[-1]}"
    if kind == "pgm":
        path.write_bytes(b"P5 256 3 65535\n" + values.astype(">u2").tobytes())
    elif kind == "big-endian tiff":
        Image.frombytes("I;16B", (256, 3), values.astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(values).save(path)
    expected = np.floor(values / 257 + 0.5)
    for channel in range(3):
        np.testing.assert_array_equal(read_image(path)[:, :, channel], expected)


def test_16_bit_rgb_png(tmp_path: Path) -> None:
    rows = RNG.integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    data = png_claiming(5, 4).replace(
        struct.pack(">IIBB", 5, 4, 8, 0), struct.pack(">IIBB", 5, 4, 16, 2)
    )
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    body = b"IDAT" + zlib.compress(raw)
    idat = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header = data[12:29]
    fixed = data[:29] + struct.pack(">I", zlib.crc32(header)) + idat + data[end:]
    assert start == 33
    (tmp_path / "a.png").write_bytes(fixed)
    assert np.abs(read_image(tmp_path / "a.png") - rows / 257).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tiff"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    colours = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 250]], dtype=np.uint8)
    indices = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.frombytes(indices.tobytes())
    image.putpalette(colours.tobytes())
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), colours[indices])


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path, suffix: str) -> None:
    indices = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    image = Image.new("P", (8, 6))
    image.frombytes(indices.tobytes())
    image.putpalette([255, 0, 0, 0, 200, 0, 10, 20, 250])
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    colours = np.array([[255, 0, 0], [255, 255, 255], [10, 20, 250]])
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), colours[indices])


def test_palette_with_partly_transparent_colours(tmp_path: Path) -> None:
    indices = RNG.integers(0, 2, (6, 8), dtype=np.uint8)
    image = Image.new("P", (8, 6))
    image.frombytes(indices.tobytes())
    image.putpalette([255, 0, 0, 0, 200, 0])
    image.save(tmp_path / "a.png", transparency=bytes([255, 51]))  # the second is 20 % opaque
    colours = np.array([[255, 0, 0], [204, 244, 204]])
    assert np.abs(read_image(tmp_path / "a.png") - colours[indices]).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_rgba_lies_on_white(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    alpha = pixels[:, :, 3:] / 255
    expected = pixels[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(read_image(tmp_path / f"a.{suffix}") - expected).max() <= 1


def test_grey_with_alpha_lies_on_white(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 8, 2), dtype=np.uint8)
    grey, alpha_band = Image.fromarray(pixels[:, :, 0]), Image.fromarray(pixels[:, :, 1])
    Image.merge("LA", [grey, alpha_band]).save(tmp_path / "a.png")
    alpha = pixels[:, :, 1:] / 255
    expected = pixels[:, :, :1] * alpha + 255 * (1 - alpha)
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1


def test_a_single_transparent_colour_of_grey_and_rgb(tmp_path: Path) -> None:
    grey = np.array([[0, 7, 200]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=7)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[0, :, 0], [0, 255, 200])
    rgb = np.array([[[1, 2, 3], [7, 8, 9]]], dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png", transparency=(7, 8, 9))
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png")[0], [[1, 2, 3], [255] * 3])
    deep = np.array([[0, 300, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=300)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[0, :, 0], [0, 255, 255])


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (5, 9), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "grey.png"), np.repeat(grey[:, :, None], 3, 2)
    )
    Image.fromarray(grey > 127).save(tmp_path / "two.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "two.png")[:, :, 1], np.where(grey > 127, 255, 0)
    )


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((16, 64, 4), dtype=np.uint8)
    inks[:, 16:32, 0] = 255  # cyan; the first quarter is bare paper
    inks[:, 32:48, 1:3] = 255  # magenta + yellow = red
    inks[:, 48:, 3] = 255  # black
    Image.fromarray(inks, mode="CMYK").save(tmp_path / f"a.{suffix}", quality=95)
    expected = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
    image = read_image(tmp_path / f"a.{suffix}")[8, 8::16].astype(int)
    assert np.abs(image - expected).max() <= (0 if suffix == "tiff" else 8)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(
        read_image(tmp_path / f"a.{suffix}"), np.tile([255, 0, 0], (6, 8, 1))
    )


def test_broken_metadata_does_not_refuse_whole_pixels(tmp_path: Path) -> None:
    pixels = smooth(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0not exif at all")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


# What is refused


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tiff", "ppm"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_a_truncated_image(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match=r"^.*a\.\w+: \w+"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [None, 16])
def test_a_truncated_jpeg_is_no_grey_half(
    tmp_path: Path, progressive: bool, size: int | None
) -> None:
    path = tmp_path / "a.jpg"
    noise = RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, progressive=progressive)
    data = path.read_bytes()
    for kept in (0.3, 0.6, 0.99):
        path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(DataError, match="truncated"):
            read_image(path, size)


@pytest.mark.parametrize(
    "content",
    [
        b"this is no photo",
        b"<html>404</html>",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"%!PS-Adobe-3.0 EPSF-3.0",
    ],
)
def test_other_files_named_jpg(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.jpg")
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'}: not a readable image (JPEG, PNG")


def test_eps_is_never_opened(tmp_path: Path) -> None:
    Image.fromarray(smooth(4, 4)).save(tmp_path / "a.eps")
    with pytest.raises(DataError, match="not a readable image"):
        read_image(tmp_path / "a.eps")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in [
        ("empty.jpg", "the file is empty"),
        ("missing.jpg", "no such file"),
        ("loop.jpg", "symbolic links"),
        ("pipe.jpg", "not a regular file"),
        (".", "is a folder"),
        ("zero\0byte.jpg", "null"),
    ]:
        with pytest.raises(DataError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("width", "height"),
    [(MAX_PIXELS + 1, 1), (12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)],
)
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int
) -> None:
    (tmp_path / "a.png").write_bytes(png_claiming(width, height))
    with pytest.raises(DataError, match=r"a\.png: too many pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_no_pixels(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png_claiming(width, height))
    with pytest.raises(DataError, match=r"a\.png: "):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.ppm").write_bytes(b"P6 %d %d 255\n" % (width, height))
    with pytest.raises(DataError, match=r"a\.ppm: "):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bit_pixels_have_no_known_white(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((3, 3), dtype=dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="32-bit pixels"):
        read_image(tmp_path / "a.tiff")


def test_pillows_warnings_stay_inside_in_threads_too(tmp_path: Path) -> None:
    """A TIFF whose tag points past the end of the file, which Pillow warns about."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[305] = "x" * 100
    path = tmp_path / "a.tiff"
    Image.fromarray(smooth(4, 4)).save(path, tiffinfo=info)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 305, 2, 101))
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data) - 10)  # points past the end
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as from_pillow:
        warnings.simplefilter("always")
        with Image.open(path) as image:
            image.load()
    assert from_pillow
    outcomes: list[object] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [
            threading.Thread(target=lambda: outcomes.append(read_image(path).shape))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [(4, 4, 3)] * 4
