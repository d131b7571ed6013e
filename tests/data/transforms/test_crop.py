"""Sizes and places: what is cut out, from where, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconv.data.transforms import (
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from tinyconv.errors import ShapeError

from .images import assert_even, coordinates, noise, rng


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_to_half_keeps_a_ramp_a_ramp(channels: int) -> None:
    ramp = np.tile(np.arange(0, 200, 5, dtype=np.uint8)[None, :, None], (40, 1, channels))
    half = Resize((20, 20))(ramp, rng())
    assert half.shape == (20, 20, channels)
    assert half.dtype == np.uint8
    middle = (ramp[::2, ::2].astype(int) + ramp[::2, 1::2]) / 2
    assert np.abs(half - middle)[:, 1:-1].max() <= 1


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 60), (20, 30)), ((60, 40), (30, 20)), ((33, 50), (20, 30))]
)
def test_resize_by_one_number_sets_the_shorter_edge(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert Resize(20)(coordinates(*shape), rng()).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("shape", "size", "top", "left"),
    [((6, 8), 4, 1, 2), ((7, 9), 4, 2, 2), ((5, 4), 4, 0, 0), ((4, 4), (2, 4), 1, 0)],
)
def test_center_crop(
    shape: tuple[int, int], size: int | tuple[int, int], top: int, left: int
) -> None:
    cut = CenterCrop(size)(coordinates(*shape), rng())
    height, width = (size, size) if isinstance(size, int) else size
    np.testing.assert_array_equal(cut, coordinates(*shape)[top : top + height, left : left + width])


def test_random_crop_reaches_every_place_and_nothing_else() -> None:
    image, generator, corners = coordinates(6, 5), rng(), set()
    for _ in range(400):
        cut = RandomCrop((4, 3))(image, generator)
        top, left = int(cut[0, 0, 0]) - 1, int(cut[0, 0, 1]) - 1
        np.testing.assert_array_equal(cut, image[top : top + 4, left : left + 3])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_random_crop_pads_with_black() -> None:
    image, generator, seen = coordinates(4, 4), rng(), set()
    for _ in range(200):
        cut = RandomCrop(4, padding=1)(image, generator)
        assert cut.shape == (4, 4, 3)
        seen.add(int((cut[:, :, 2] == 0).sum()))
    assert seen == {0, 4, 7}  # centred, moved to a side, moved to a corner


@pytest.mark.parametrize(
    ("padding", "left", "top", "right", "bottom"),
    [(2, 2, 2, 2, 2), ((1, 2), 1, 2, 1, 2), ([1, 2, 3, 0], 1, 2, 3, 0)],
)
def test_padding_of_the_sides(
    padding: int | tuple[int, ...], left: int, top: int, right: int, bottom: int
) -> None:
    height, width = 4 + top + bottom, 5 + left + right
    whole = RandomCrop((height, width), padding)(coordinates(4, 5), rng())
    expected = np.zeros((height, width, 3), np.uint8)
    expected[top : top + 4, left : left + 5] = coordinates(4, 5)
    np.testing.assert_array_equal(whole, expected)


def test_flip() -> None:
    image, generator = coordinates(3, 4), rng()
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(image, generator), image[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(image, generator), image)
    flipped = sum(
        RandomHorizontalFlip()(image, generator)[0, 0, 1] != image[0, 0, 1] for _ in range(1000)
    )
    assert 430 < flipped < 570  # 4.4 standard deviations


# RandomResizedCrop


def test_a_part_is_drawn_evenly_in_area_log_aspect_and_place() -> None:
    crop, generator = RandomResizedCrop(8, scale=(0.1, 0.5), ratio=(0.5, 2.0)), rng()
    parts = np.array([crop.draw(1000, 1000, generator) for _ in range(2000)])
    top, left, height, width = parts.T
    # 1 % beyond the range: the sides are rounded to whole pixels
    assert_even(height * width / 1000**2, 0.099, 0.505)
    assert_even(np.log2(width / height), -1.01, 1.01)
    assert_even(top / (1000 - height), 0, 1)
    assert_even(left / (1000 - width), 0, 1)


def test_the_part_is_cut_and_resized() -> None:
    image, crop = coordinates(30, 50), RandomResizedCrop((12, 18), scale=(0.2, 0.6))
    for seed in range(20):
        top, left, height, width = crop.draw(30, 50, rng(seed))
        part = image[top : top + height, left : left + width]
        assert part.shape == (height, width, 3)
        expected = Resize((12, 18))(part, rng())
        np.testing.assert_array_equal(crop(image, rng(seed)), expected)


def test_a_crop_of_everything_is_a_resize() -> None:
    image = noise(20, 20)
    crop = RandomResizedCrop(7, scale=(1, 1), ratio=(1, 1))
    np.testing.assert_array_equal(crop(image, rng()), Resize((7, 7))(image, rng()))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))],
)
def test_where_no_part_fits_the_middle_is_taken(
    height: int, width: int, expected: tuple[int, int, int, int]
) -> None:
    crop = RandomResizedCrop(8, scale=(0.9, 1))
    assert crop.draw(height, width, rng()) == expected


def test_a_small_image_gives_a_part_of_at_least_a_pixel() -> None:
    crop, generator = RandomResizedCrop(4, scale=(0.01, 1)), rng()
    for _ in range(200):
        assert crop(noise(2, 3, 1), generator).shape == (4, 4, 1)


# Arguments


@pytest.mark.parametrize("crop", [CenterCrop((5, 9)), RandomCrop((5, 9))])
def test_a_crop_larger_than_the_image(crop: CenterCrop | RandomCrop) -> None:
    with pytest.raises(ShapeError, match=r"Crop\(size=\(5, 9\).*larger than the image of 8 x 6"):
        crop(coordinates(8, 6), rng())


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        CenterCrop(0)
    for padding in (-1, (1, -1), (1, 2, 3), (), 1.5, "4", None, np.array([1, 2])):
        with pytest.raises(ValueError, match=r"padding is .*expected 0 or more pixels, \(x, y\)"):
            RandomCrop(4, padding=padding)  # type: ignore[arg-type]
    for p in (1.5, "0.5", None):
        with pytest.raises(ValueError, match=r"p is .*; expected a probability from 0 to 1"):
            RandomHorizontalFlip(p)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size is"):
        Resize((3, 0))
    with pytest.raises(ValueError, match=r"scale is \(0, 1\); .*low <= high, above 0, at most 1"):
        RandomResizedCrop(8, scale=(0, 1))
    with pytest.raises(ValueError, match=r"ratio is \(2, 1\); expected \(low, high\)"):
        RandomResizedCrop(8, ratio=(2, 1))
    with pytest.raises(ValueError, match=r"scale is 0\.5; expected \(low, high\)"):
        RandomResizedCrop(8, scale=0.5)  # type: ignore[arg-type]
