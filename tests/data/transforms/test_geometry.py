"""Rotation and affine maps: points that can be worked out by hand, and what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinyconv.data.transforms import RandomAffine, RandomRotation
from tinyconv.data.transforms.geometry import affine, affine_matrix, rotate

from .images import assert_even, coordinates, noise, rng


def moved(
    x: float,
    y: float,
    center: tuple[float, float] = (0, 0),
    angle: float = 0,
    translate: tuple[float, float] = (0, 0),
    scale: float = 1,
    shear: tuple[float, float] = (0, 0),
) -> list[float]:
    return (affine_matrix(center, angle, translate, scale, shear) @ [x, y, 1])[:2].tolist()


def test_where_a_point_goes() -> None:
    assert moved(3, 4) == [3, 4]
    assert moved(3, 4, translate=(10, -1)) == [13, 3]
    assert moved(3, 4, scale=2) == [6, 8]
    assert moved(3, 4, center=(1, 4), scale=2) == [5, 4]
    assert moved(3, 4, angle=90) == pytest.approx([-4, 3])  # clockwise, as y points down
    assert moved(3, 4, shear=(45, 0)) == pytest.approx([-1, 4])
    assert moved(3, 4, shear=(0, 45)) == pytest.approx([3, 1])
    # sheared along x, then along y, then zoomed, turned and shifted
    assert moved(3, 4, (0, 0), 90, (1, 1), 2, (45, 45)) == pytest.approx([-9, -1])


def test_the_center_is_only_shifted() -> None:
    for draw in rng().uniform(-1, 1, (20, 8)):
        center, shift = (50 * draw[0], 50 * draw[1]), (9 * draw[2], 9 * draw[3])
        shear = (80 * draw[6], 80 * draw[7])
        went = moved(*center, center, 180 * draw[4], shift, 1.5 + draw[5], shear)
        assert went == pytest.approx([center[0] + shift[0], center[1] + shift[1]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_affine_shifts_by_whole_pixels(channels: int, interpolation: str) -> None:
    image = noise(6, 8, channels)
    expected = np.full_like(image, 7)
    expected[2:, :-3] = image[:-2, 3:]
    shifted = affine(image, translate=(-3, 2), interpolation=interpolation, fill=7)
    np.testing.assert_array_equal(shifted, expected)


def test_affine_zooms_about_the_middle() -> None:
    image = noise(8, 8)
    expected = image[2:6, 2:6].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(affine(image, scale=2), expected)


def test_affine_turns_clockwise_and_rotate_the_other_way() -> None:
    image = noise(7, 7)
    np.testing.assert_array_equal(affine(image, 90), np.rot90(image, -1))
    np.testing.assert_array_equal(rotate(image, 90), np.rot90(image))
    np.testing.assert_array_equal(rotate(image, 180), image[::-1, ::-1])


def test_shear_moves_each_row_by_its_distance_from_the_center() -> None:
    sheared = affine(coordinates(8, 8, 1), shear=(-45, 0), center=(0, 0))[:, :, 0]
    for row in range(8):  # the middle of row r moves by r + 1/2, its edge by r or r + 1
        assert (sheared[row, row + 1 :] == row + 1).all()
        assert (sheared[row, :row] == 0).all()


def test_rotate_expand_keeps_the_whole_image() -> None:
    image = noise(5, 9, 1)
    np.testing.assert_array_equal(rotate(image, 90, expand=True), np.rot90(image))
    assert rotate(image, 45, expand=True).shape[0] > 9


def test_rotate_about_a_corner() -> None:
    turned = rotate(noise(6, 6, 1), 90, center=(0, 0), fill=255)
    np.testing.assert_array_equal(turned, np.full((6, 6, 1), 255))


@pytest.mark.parametrize("fill", [9, (9, 8, 7)])
def test_fill(fill: int | tuple[int, ...]) -> None:
    image = noise(4, 4)
    outside = np.broadcast_to(fill, (4, 4, 3))
    np.testing.assert_array_equal(affine(image, translate=(4, 0), fill=fill), outside)
    np.testing.assert_array_equal(rotate(image, 90, center=(4, 4), fill=fill), outside)


# What is drawn


def test_random_rotation_draws_from_its_degrees() -> None:
    image = noise(9, 9)
    for degrees in ((30, 30), [30, 30]):
        turned = RandomRotation(degrees)(image, rng())
        np.testing.assert_array_equal(turned, rotate(image, 30))
    rotation = RandomRotation(20, "bilinear", fill=5)
    assert rotation.degrees == (-20, 20)
    for seed in range(5):
        expected = rotate(image, rng(seed).uniform(-20, 20), "bilinear", fill=5)
        np.testing.assert_array_equal(rotation(image, rng(seed)), expected)


def test_random_affine_draws_every_amount_evenly() -> None:
    transform, generator = RandomAffine(10, (0.1, 0.2), (0.5, 2), (-5, 5, 0, 8)), rng()
    draws = [transform.draw(1000, 500, generator) for _ in range(2000)]
    angles, shifts, zooms, shears = zip(*draws, strict=True)
    assert_even(angles, -10, 10)
    assert_even([right for right, _ in shifts], -50, 50)
    assert_even([down for _, down in shifts], -200, 200)
    assert all(isinstance(pixels, int) for shift in shifts for pixels in shift)
    assert_even(zooms, 0.5, 2)
    assert_even([x for x, _ in shears], -5, 5)
    assert_even([y for _, y in shears], 0, 8)


def test_random_affine_without_settings_only_turns() -> None:
    angle, *rest = RandomAffine((3, 4)).draw(10, 10, rng())
    assert 3 <= angle <= 4
    assert rest == [(0, 0), 1, (0, 0)]
    shear = RandomAffine(0, shear=6)
    assert all(math.fabs(shear.draw(9, 9, rng(n))[3][0]) <= 6 for n in range(50))
    assert shear.draw(9, 9, rng())[3][1] == 0


def test_random_affine_applies_what_it_draws() -> None:
    image = noise(20, 30)
    transform = RandomAffine(90, (0.3, 0.3), (0.5, 1.5), 20, "bilinear", (1, 2, 3), (4, 5))
    for seed in range(5):
        drawn = transform.draw(20, 30, rng(seed))
        expected = affine(image, *drawn, "bilinear", (1, 2, 3), (4, 5))
        np.testing.assert_array_equal(transform(image, rng(seed)), expected)


# Arguments


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="degrees is -5; expected 0 or more"):
        RandomRotation(-5)
    with pytest.raises(ValueError, match=r"degrees is \(1, 2, 3\); expected \(low, high\)"):
        RandomAffine((1, 2, 3))
    for degrees in (np.array([1, 2]), None):
        with pytest.raises(
            ValueError, match=r"degrees is .*; expected 0 or more, or \(low, high\)"
        ):
            RandomRotation(degrees)  # type: ignore[arg-type]
    for degrees in ("30", ("1", "2")):
        with pytest.raises(ValueError, match=r"degrees is .*; expected \(low, high\)"):
            RandomRotation(degrees)  # type: ignore[arg-type]
    for translate in ((0.1, 2), 0.1, "ab", (0.1,)):
        with pytest.raises(ValueError, match=r"translate is .*; expected two shares \(x, y\)"):
            RandomAffine(0, translate=translate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"scale is \(0, 1\); .*above 0"):
        RandomAffine(0, scale=(0, 1))
    with pytest.raises(ValueError, match="shear is 95; expected 0 or more to 90"):
        RandomAffine(0, shear=95)
    with pytest.raises(ValueError, match="interpolation is 'cubic'; expected one of nearest, bil"):
        RandomRotation(5, "cubic")
    for fill in (256, "red", None):
        with pytest.raises(ValueError, match=r"fill is .*; expected a number from 0 to 255"):
            RandomAffine(5, fill=fill)  # type: ignore[arg-type]


def test_a_fill_of_another_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"fill is \(1, 2, 3\); the image has 1 channel"):
        RandomRotation(5, fill=(1, 2, 3))(noise(4, 4, 1), rng())
