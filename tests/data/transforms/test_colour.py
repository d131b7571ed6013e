"""Colours against the formulas, in NumPy; Pillow computes in bytes, so one step of 255 may differ
where a result lies between two."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from tinyconv.data.transforms import ColorJitter, colour

from .images import noise, rng

FACTORS = (0.0, 0.3, 1.0, 1.7)


def grey(image: np.ndarray) -> np.ndarray:
    """Luminance of ITU-R BT.601, one channel."""
    if image.shape[2] == 1:
        return image.astype(float)
    return (image @ np.array([0.299, 0.587, 0.114]))[:, :, None]


def assert_adjusted(adjusted: np.ndarray, image: np.ndarray, plain: np.ndarray, factor: float):
    expected = np.clip(plain + factor * (image.astype(float) - plain), 0, 255)
    assert adjusted.shape == image.shape
    assert adjusted.dtype == np.uint8
    # A byte of `plain` may be rounded by up to 1 and is weighted by |1 - factor|; then truncation.
    assert np.abs(adjusted - expected).max() <= 1 + abs(1 - factor)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_adjustments(channels: int, factor: float) -> None:
    image = noise(12, 15, channels)
    black, mean = np.zeros(image.shape), np.full(image.shape, round(grey(image).mean()))
    assert_adjusted(colour.adjust_brightness(image, factor), image, black, factor)
    assert_adjusted(colour.adjust_contrast(image, factor), image, mean, factor)
    in_grey = np.broadcast_to(grey(image), image.shape)
    assert_adjusted(colour.adjust_saturation(image, factor), image, in_grey, factor)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_sharpness(channels: int, factor: float) -> None:
    image = noise(12, 15, channels)
    smooth = image.astype(float)  # the border stays
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(float), (3, 3), axis=(0, 1))
    smooth[1:-1, 1:-1] = (windows * kernel).sum(axis=(-2, -1))
    assert_adjusted(colour.adjust_sharpness(image, factor), image, smooth, factor)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [(1 / 3, [0, 255, 0]), (-1 / 3, [0, 0, 255]), (0.5, [0, 255, 255]), (-0.5, [0, 255, 255])],
)
def test_hue_of_red(turn: float, expected: list[int]) -> None:
    red = np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)
    turned = colour.adjust_hue(red, turn)
    assert np.abs(turned.astype(int) - expected).max() <= 12  # two of the 256 steps around


def test_hue_keeps_what_has_none() -> None:
    greys = np.tile(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], (3, 1, 3))
    np.testing.assert_array_equal(colour.adjust_hue(greys, 0.3), greys)
    image = noise(4, 4, 1)
    np.testing.assert_array_equal(colour.adjust_hue(image, 0.3), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_curves(channels: int) -> None:
    image = noise(12, 15, channels)
    for bits in range(9):
        step = 2 ** (8 - bits)
        np.testing.assert_array_equal(
            colour.posterize(image, bits), image.astype(int) // step * step
        )
    solarized = colour.solarize(image, 100)
    np.testing.assert_array_equal(solarized[image < 100], image[image < 100])
    np.testing.assert_array_equal(solarized[image >= 100], 255 - image[image >= 100])
    np.testing.assert_array_equal(colour.solarize(image, 255.5), image)


def test_autocontrast_stretches_each_channel() -> None:
    image = (noise(20, 20) % 100 + np.array([0, 50, 155])).astype(np.uint8)
    low, high = image.min(axis=(0, 1)).astype(float), image.max(axis=(0, 1))
    expected = (image - low) * 255 / (high - low)
    assert np.abs(colour.autocontrast(image) - expected).max() <= 1
    flat = np.full((3, 3, 1), 9, dtype=np.uint8)
    np.testing.assert_array_equal(colour.autocontrast(flat), flat)


def test_equalize_makes_grey_levels_equally_frequent() -> None:
    dark = (255 * rng().random((200, 200, 1)) ** 3).astype(np.uint8)
    counts, _ = np.histogram(colour.equalize(dark), bins=4, range=(0, 256))
    assert np.histogram(dark, bins=4, range=(0, 256))[0].max() > 24000
    # A level is never split, and the two darkest hold a fifth of all pixels each.
    assert counts.max() < 14000


# ColorJitter


def test_jitter_of_one_thing() -> None:
    image = noise(8, 8)
    for name, limits, adjust in (
        ("brightness", (0.6, 1.4), colour.adjust_brightness),
        ("contrast", (0.6, 1.4), colour.adjust_contrast),
        ("saturation", (0.6, 1.4), colour.adjust_saturation),
        ("hue", (-0.4, 0.4), colour.adjust_hue),
    ):
        jitter = ColorJitter(**{name: 0.4})
        assert getattr(jitter, name) == pytest.approx(limits)
        found = jitter(image, rng(3))
        generator = rng(3)
        generator.permutation(4)
        expected = adjust(image, generator.uniform(*getattr(jitter, name)))
        np.testing.assert_array_equal(found, expected)
        assert (found != image).any()


def test_jitter_of_nothing() -> None:
    image = noise(8, 8)
    assert ColorJitter()(image, rng()) is image
    assert ColorJitter((1, 1), (1, 1), (1, 1), (0, 0))(image, rng()) is image


def test_jitter_in_every_order() -> None:
    """Double brightness and half contrast: the darker half of the image tells which was first."""
    image = np.repeat(np.array([100, 200], dtype=np.uint8), 8).reshape(4, 4, 1)
    jitter = ColorJitter(brightness=(2, 2), contrast=(0.5, 0.5))
    found = [jitter(image, rng(seed))[0, 0, 0] for seed in range(200)]
    # doubled: 200 and 255, mean 228, then halfway there; halfway to 150 first: 125, then 250
    assert set(found) == {214, 250}
    assert 68 < found.count(214) < 132  # 4.5 standard deviations


def test_jitter_of_four_things_uses_all_orders() -> None:
    image, fixed = noise(8, 8), ColorJitter((1.3, 1.3), (0.7, 0.7), (1.5, 1.5), (0.2, 0.2))
    adjust = (
        lambda image: colour.adjust_brightness(image, 1.3),
        lambda image: colour.adjust_contrast(image, 0.7),
        lambda image: colour.adjust_saturation(image, 1.5),
        lambda image: colour.adjust_hue(image, 0.2),
    )
    expected = {
        functools.reduce(lambda changed, n: adjust[n](changed), order, image).tobytes()
        for order in itertools.permutations(range(4))
    }
    assert {fixed(image, rng(seed)).tobytes() for seed in range(300)} == expected


def test_jitter_of_a_grey_image() -> None:
    assert ColorJitter(0.5, 0.5, 0.5, 0.5)(noise(8, 8, 1), rng()).shape == (8, 8, 1)


def test_settings_that_are_none() -> None:
    assert ColorJitter(brightness=3).brightness == (0, 4)
    with pytest.raises(ValueError, match="contrast is -1; expected 0 or more"):
        ColorJitter(contrast=-1)
    with pytest.raises(ValueError, match=r"hue is 0\.6; expected 0 or more to 0\.5"):
        ColorJitter(hue=0.6)
    with pytest.raises(ValueError, match=r"hue is \(-1, 0\); .*at least -0\.5, at most 0\.5"):
        ColorJitter(hue=(-1, 0))
    with pytest.raises(ValueError, match=r"saturation is \(2, 1\); expected \(low, high\)"):
        ColorJitter(saturation=(2, 1))
