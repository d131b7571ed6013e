"""MixUp and CutMix: pixels and labels in the same proportion, with the neighbour in the batch."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconv.data.transforms import CutMix, Mix, MixUp, RandomChoice
from tinyconv.errors import ShapeError

from .images import assert_even, rng

LABELS = np.array([2, 0, 1, 2, 2])


def batch(channels: int = 3) -> np.ndarray:
    return rng().integers(0, 256, (5, 16, 24, channels), dtype=np.uint8)


def one_hot(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == np.arange(3)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup(channels: int) -> None:
    images, mix = batch(channels), MixUp(alpha=0.4, num_classes=3)
    kept = images.copy()
    for seed in range(10):
        share = rng(seed).beta(0.4, 0.4)
        mixed, labels = mix(images, LABELS, rng(seed))
        assert mixed.dtype == np.uint8
        assert labels.dtype == np.float32
        for n in range(5):  # the one before the first is the last
            expected = share * images[n].astype(float) + (1 - share) * images[n - 1]
            assert np.abs(mixed[n] - expected).max() <= 0.501
            expected = share * one_hot(LABELS)[n] + (1 - share) * one_hot(LABELS)[n - 1]
            np.testing.assert_allclose(labels[n], expected, atol=1e-6)
    np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize("channels", [1, 3])
def test_cutmix(channels: int) -> None:
    images, mix = batch(channels), CutMix(num_classes=3)
    for seed in range(20):
        top, left, bottom, right = mix.draw(16, 24, rng(seed))
        mixed, labels = mix(images, LABELS, rng(seed))
        assert mixed.dtype == np.uint8
        assert labels.dtype == np.float32
        inside = np.zeros((16, 24), dtype=bool)
        inside[top:bottom, left:right] = True
        for n in range(5):
            np.testing.assert_array_equal(mixed[n][inside], images[n - 1][inside])
            np.testing.assert_array_equal(mixed[n][~inside], images[n][~inside])
            other = inside.mean()
            expected = (1 - other) * one_hot(LABELS)[n] + other * one_hot(LABELS)[n - 1]
            np.testing.assert_allclose(labels[n], expected, atol=1e-6)


def test_the_share_is_drawn_from_beta() -> None:
    """Beta(1, 1) is even over 0 to 1; with alpha 0.2 most shares are near 0 or 1."""
    images, labels, generator = np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 1]), rng()

    def shares(alpha: float) -> np.ndarray:
        mix = MixUp(alpha=alpha, num_classes=2)
        return np.array([mix(images, labels, generator)[1][0, 0] for _ in range(2000)])

    assert_even(shares(1.0), 0, 1)
    few = shares(0.2)
    # variance of Beta(a, a): 1 / (4 (2 a + 1))
    assert few.var() == pytest.approx(1 / 5.6, rel=0.1)


def test_the_rectangle_is_centred_anywhere_and_cut_off_at_the_border() -> None:
    mix, generator = CutMix(alpha=1.0, num_classes=2), rng()
    boxes = np.array([mix.draw(1000, 1000, generator) for _ in range(4000)])
    top, left, bottom, right = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 1000
    whole = boxes[(top > 0) & (left > 0) & (bottom < 1000) & (right < 1000)]
    np.testing.assert_array_equal(whole[:, 2] - whole[:, 0], whole[:, 3] - whole[:, 1])  # square
    # Half of the middles of cut-off sides lie beyond each border alike.
    assert (top == 0).mean() == pytest.approx((bottom == 1000).mean(), abs=0.05)
    assert (left == 0).mean() == pytest.approx((right == 1000).mean(), abs=0.05)
    # A side of sqrt(u) is kept whole with probability 1 - sqrt(u); E = integral of 1 - sqrt(u).
    assert ((top > 0) & (bottom < 1000)).mean() == pytest.approx(1 / 3, abs=0.04)


def test_choice_of_the_two() -> None:
    images, generator = batch(), rng()
    up, cut = MixUp(num_classes=3), CutMix(num_classes=3)
    choice = RandomChoice([up, cut], p=[1, 3])
    cuts = 0
    for _ in range(300):
        mixed, labels = choice(images, LABELS, generator)
        assert labels.shape == (5, 3)
        # What is cut is copied: every pixel is that of one image or of the other.
        one_of_both = (mixed == images) | (mixed == np.roll(images, 1, axis=0))
        cuts += bool(one_of_both.all())
    assert 185 < cuts < 265  # 5 standard deviations about 225


@pytest.mark.parametrize("mix", [MixUp(num_classes=2), CutMix(num_classes=2)])
def test_what_does_not_fit(mix: Mix) -> None:
    images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="label 2 is out of range; expected 0 to 1"):
        mix(images, np.array([0, 2]), rng())
    with pytest.raises(ValueError, match="label -1 is out of range"):
        mix(images, np.array([-1, 0]), rng())
    with pytest.raises(ShapeError, match=r"images of shape \(2, 4, 4, 3\) and labels of shape"):
        mix(images, np.array([0, 1, 1]), rng())
    with pytest.raises(ShapeError, match=r"expected \(N, H, W, C\) and \(N,\)"):
        mix(images[0], np.array([0, 1, 1, 1]), rng())


def test_settings_that_are_none() -> None:
    for mix in (MixUp, CutMix):
        with pytest.raises(ValueError, match="alpha is 0; expected a number above 0"):
            mix(alpha=0, num_classes=2)
        with pytest.raises(ValueError, match="num_classes is 0; expected 1 or more"):
            mix(num_classes=0)
