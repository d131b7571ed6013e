"""Transforms against their definitions (torchvision's, where it has the same one)."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconv.data.transforms import (
    CenterCrop,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)
from tinyconv.errors import ShapeError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(height: int, width: int, channels: int = 3) -> np.ndarray:
    """An image whose first pixel values tell the row and the column (the third is 1)."""
    image = np.ones((height, width, 3), dtype=np.uint8)
    image[:, :, 0], image[:, :, 1] = np.mgrid[1 : height + 1, 1 : width + 1]
    return image[:, :, :channels]


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


def test_flip() -> None:
    image, generator = coordinates(3, 4), rng()
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(image, generator), image[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(image, generator), image)
    flipped = sum(
        RandomHorizontalFlip()(image, generator)[0, 0, 1] != image[0, 0, 1] for _ in range(1000)
    )
    assert 430 < flipped < 570  # 4.4 standard deviations


def test_compose_applies_in_order_with_one_stream() -> None:
    image = coordinates(8, 8)
    both = Compose([RandomCrop(6), RandomHorizontalFlip()])
    for seed in range(20):
        generator = rng(seed)
        expected = RandomHorizontalFlip()(RandomCrop(6)(image, generator), generator)
        np.testing.assert_array_equal(both(image, rng(seed)), expected)


@pytest.mark.parametrize("crop", [CenterCrop((5, 9)), RandomCrop((5, 9))])
def test_a_crop_larger_than_the_image(crop: CenterCrop | RandomCrop) -> None:
    with pytest.raises(ShapeError, match=r"Crop\(size=\(5, 9\).*larger than the image of 8 x 6"):
        crop(coordinates(8, 6), rng())


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        CenterCrop(0)
    with pytest.raises(ValueError, match="padding is -1"):
        RandomCrop(4, padding=-1)
    with pytest.raises(ValueError, match=r"p is 1\.5"):
        RandomHorizontalFlip(1.5)
    with pytest.raises(ValueError, match="size is"):
        Resize((3, 0))


def test_repr_shows_the_settings() -> None:
    chain = Compose([Resize(40), RandomCrop(32, padding=4), RandomHorizontalFlip(), CenterCrop(3)])
    assert repr(chain) == (
        "Compose([Resize(size=40), RandomCrop(size=(32, 32), padding=4), "
        "RandomHorizontalFlip(p=0.5), CenterCrop(size=(3, 3))])"
    )
