"""RandomErasing: one rectangle, of the sizes and at the places that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconv.data.transforms import RandomErasing

from .images import assert_even, noise, rng


def test_size_aspect_and_place_are_drawn_evenly() -> None:
    erase, generator = RandomErasing(scale=(0.1, 0.4), ratio=(0.5, 2)), rng()
    boxes = np.array([erase.draw(1000, 1000, generator) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert_even(height * width / 1000**2, 0.099, 0.404)
    assert_even(np.log2(height / width), -1.01, 1.01)
    assert_even(top / (1000 - height), 0, 1)
    assert_even(left / (1000 - width), 0, 1)


def test_the_aspect_is_height_over_width() -> None:
    _, _, height, width = RandomErasing(ratio=(3, 3)).draw(300, 300, rng())
    assert height / width == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(("channels", "value"), [(1, 7), (3, 7), (3, (7, 8, 9)), (1, [7])])
def test_the_rectangle_and_nothing_else_is_painted(
    channels: int, value: int | tuple[int, ...]
) -> None:
    image, erase = noise(20, 30, channels), RandomErasing(1, value=value)
    for seed in range(20):
        generator = rng(seed)
        generator.random()
        top, left, height, width = erase.draw(20, 30, generator)
        expected = image.copy()
        expected[top : top + height, left : left + width] = value
        np.testing.assert_array_equal(erase(image, rng(seed)), expected)


def test_random_value_is_noise_over_all_bytes() -> None:
    black = np.zeros((300, 300, 3), dtype=np.uint8)
    erase = RandomErasing(1, scale=(0.3, 0.3), ratio=(1, 1), value="random")
    painted = erase(black, rng())
    inside = painted[(painted > 0).any(axis=2)]
    assert len(inside) == pytest.approx(0.3 * 300**2, rel=0.02)
    assert inside.max() == 255
    assert_even(inside[inside < 250], 0, 250)
    assert (inside[:, 0] != inside[:, 1]).mean() > 0.9


def test_probability() -> None:
    image, generator = noise(20, 20), rng()
    assert RandomErasing(0)(image, generator) is image
    erased = sum(RandomErasing(0.3)(image, generator) is not image for _ in range(1000))
    assert 235 < erased < 365  # 4.5 standard deviations


def test_an_image_that_no_draw_fits_stays() -> None:
    image = noise(1, 200)
    erase = RandomErasing(1, scale=(0.3, 0.3), ratio=(1, 1), value=1)
    np.testing.assert_array_equal(erase(image, rng()), image)


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="p is 2; expected a probability"):
        RandomErasing(2)
    with pytest.raises(ValueError, match=r"scale is \(0, 2\); .*at least 0, at most 1"):
        RandomErasing(scale=(0, 2))
    with pytest.raises(ValueError, match=r"ratio is \(0, 2\); .*above 0"):
        RandomErasing(ratio=(0, 2))
    with pytest.raises(ValueError, match="value is 'noise'; expected a colour or \"random\""):
        RandomErasing(value="noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="value is 300; expected a number from 0 to 255"):
        RandomErasing(value=300)
    with pytest.raises(ValueError, match=r"value is \(1, 2\); the image has 3 channel"):
        RandomErasing(1, value=(1, 2))(noise(20, 20), rng())
