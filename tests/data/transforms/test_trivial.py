"""TrivialAugmentWide: the table of the paper, and that each entry is as likely as the others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tinyconv.data.transforms import TrivialAugmentWide
from tinyconv.data.transforms.trivial import OPERATIONS

from .images import noise, rng

# Müller and Hutter, 2021, table 1, the column for the wide space; the factors of the colour
# operations, 0.01 to 1.99 there, are 1 + or - the magnitude here.
SLOPE, SHIFT, FACTOR = (0, 0.99, True), (0, 32, True), (0, 0.99, True)
WIDE = {
    "Identity": (0, 0, False),
    "ShearX": SLOPE,
    "ShearY": SLOPE,
    "TranslateX": SHIFT,
    "TranslateY": SHIFT,
    "Rotate": (0, 135, True),
    "Brightness": FACTOR,
    "Color": FACTOR,
    "Contrast": FACTOR,
    "Sharpness": FACTOR,
    "Posterize": (8, 2, False),
    "Solarize": (255, 0, False),
    "AutoContrast": (0, 0, False),
    "Equalize": (0, 0, False),
}
HOW = {"interpolation": "nearest", "fill": 0}


def test_the_space_is_that_of_the_paper() -> None:
    assert {name: tuple(entry[1:]) for name, entry in OPERATIONS.items()} == WIDE


def test_everything_is_drawn_equally_often() -> None:
    augment, generator = TrivialAugmentWide(), rng()
    draws = [augment.draw(generator) for _ in range(14 * 600)]
    counts = Counter(name for name, _ in draws)
    assert set(counts) == set(WIDE)
    assert sum((count - 600) ** 2 / 600 for count in counts.values()) < 34.5  # chi-squared, 13
    for name, (first, last, signed) in WIDE.items():
        found = np.array([magnitude for drawn, magnitude in draws if drawn == name])
        bins = np.unique(np.abs(found))
        np.testing.assert_allclose(bins, np.unique(np.linspace(first, last, 31)), atol=1e-12)
        strong = found[np.abs(found) > 0]
        negative = (strong < 0).sum() / max(len(strong), 1)
        assert negative == 0 if not signed else 0.4 < negative < 0.6


def test_bins() -> None:
    generator = rng()
    drawn = [TrivialAugmentWide(num_magnitude_bins=3).draw(generator) for _ in range(500)]
    assert {magnitude for name, magnitude in drawn if name == "Rotate"} == {
        0,
        *(67.5, -67.5, 135, -135),
    }


def test_geometry_moves_by_the_magnitude() -> None:
    image = noise(40, 40, 1)
    right = OPERATIONS["TranslateX"].apply(image, 9.6, HOW)  # whole pixels, towards 0
    np.testing.assert_array_equal(right[:, 9:], image[:, :-9])
    up = OPERATIONS["TranslateY"].apply(image, -9.6, HOW)
    np.testing.assert_array_equal(up[:-9], image[9:])
    turned = OPERATIONS["Rotate"].apply(image, 90, HOW)
    np.testing.assert_array_equal(turned, np.rot90(image))
    for name, axis in (("ShearX", 0), ("ShearY", 1)):
        for slope in (0.5, -0.5):  # line n moves by -slope (n + 1/2), rounded
            sheared = OPERATIONS[name].apply(image, slope, HOW)
            line, before = np.take(sheared, 21, axis=axis), np.take(image, 21, axis=axis)
            distance = round(-slope * 21.5)
            kept = slice(0, distance) if distance < 0 else slice(distance, 40)
            source = slice(-distance, 40) if distance < 0 else slice(0, 40 - distance)
            np.testing.assert_array_equal(line[kept], before[source])


def test_colours_change_by_the_magnitude() -> None:
    image = noise(8, 8)
    for name in ("Brightness", "Color", "Contrast", "Sharpness"):
        np.testing.assert_array_equal(OPERATIONS[name].apply(image, 0, HOW), image)
        assert (OPERATIONS[name].apply(image, -0.99, HOW) != image).any()
    darker = OPERATIONS["Brightness"].apply(image, -0.5, HOW)
    assert np.abs(darker - image / 2).max() <= 1
    np.testing.assert_array_equal(
        OPERATIONS["Posterize"].apply(image, 2.4, HOW), image & 0b11000000
    )
    np.testing.assert_array_equal(OPERATIONS["Solarize"].apply(image, 0, HOW), 255 - image)
    np.testing.assert_array_equal(OPERATIONS["Identity"].apply(image, 0, HOW), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_operation_drawn_is_applied_with_fill_and_interpolation(channels: int) -> None:
    image, how = noise(24, 20, channels), {"interpolation": "bilinear", "fill": 9}
    augment = TrivialAugmentWide(**how)
    for seed in range(40):
        name, magnitude = augment.draw(rng(seed))
        found = augment(image, rng(seed))
        assert found.shape == image.shape
        np.testing.assert_array_equal(found, OPERATIONS[name].apply(image, magnitude, how))


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="num_magnitude_bins is 1; expected 2 or more"):
        TrivialAugmentWide(1)
    with pytest.raises(ValueError, match="interpolation is 'best'"):
        TrivialAugmentWide(interpolation="best")
    with pytest.raises(ValueError, match="fill is -1"):
        TrivialAugmentWide(fill=-1)
