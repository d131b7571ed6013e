"""What all transforms have in common, chains and choices of them, and Normalize."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    CutMix,
    Mix,
    MixUp,
    Normalize,
    RandomAffine,
    RandomChoice,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    Transform,
    TrivialAugmentWide,
)
from tinyconv.errors import ShapeError

from .images import coordinates, noise, rng

RANDOM = [
    RandomCrop(20),
    RandomResizedCrop(20),
    RandomHorizontalFlip(),
    RandomRotation(30),
    RandomAffine(10, (0.1, 0.1), (0.8, 1.2), 5),
    ColorJitter(0.5, 0.5, 0.5, 0.1),
    TrivialAugmentWide(),
    RandomErasing(),
    RandomChoice([RandomHorizontalFlip(1), RandomCrop(28)]),
    Compose([RandomResizedCrop(20), RandomHorizontalFlip(), TrivialAugmentWide(), RandomErasing()]),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", RANDOM, ids=lambda transform: type(transform).__name__)
def test_all_randomness_comes_from_the_generator(transform: Transform, channels: int) -> None:
    image = noise(28, 28, channels)  # may not be written to
    results = [transform(image, rng(seed)) for seed in range(12)]
    for seed, result in enumerate(results):
        assert result.dtype == np.uint8
        assert result.ndim == 3
        assert result.shape[2] == channels
        np.testing.assert_array_equal(transform(image, rng(seed)), result)
        # a view with other strides holds the same image
        flipped_twice = image[:, ::-1].copy()[:, ::-1]
        np.testing.assert_array_equal(transform(flipped_twice, rng(seed)), result)
    assert len({result.tobytes() for result in results}) > 1


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((28, 28), np.uint8), r"uint8 \(28, 28\)"),
        (np.zeros((3, 28, 28), np.uint8), r"uint8 \(3, 28, 28\)"),
        (np.zeros((28, 28, 3), np.float32), r"float32 \(28, 28, 3\)"),
    ],
)
@pytest.mark.parametrize("transform", RANDOM, ids=lambda transform: type(transform).__name__)
def test_what_is_no_image(transform: Transform, image: np.ndarray, found: str) -> None:
    with pytest.raises(ShapeError, match=rf"the image is {found}; expected uint8 \(H, W, C\)"):
        transform(image, rng())
    with pytest.raises(TypeError, match="the image is of type Image; expected an array"):
        transform(Image.new("RGB", (28, 28)), rng())  # type: ignore[arg-type]


@pytest.mark.parametrize("mix", [MixUp(num_classes=3), CutMix(num_classes=3)])
def test_compose_takes_no_mixes(mix: Mix) -> None:
    for transforms in ([mix], [Resize(3), RandomChoice([mix])]):
        with pytest.raises(TypeError, match=r"Compose: (MixUp|CutMix)\(.*give it to Loader\(mix="):
            Compose(transforms)  # type: ignore[arg-type]


def test_compose_applies_in_order_with_one_stream() -> None:
    image = coordinates(8, 8)
    both = Compose([RandomCrop(6), RandomHorizontalFlip()])
    for seed in range(20):
        generator = rng(seed)
        expected = RandomHorizontalFlip()(RandomCrop(6)(image, generator), generator)
        np.testing.assert_array_equal(both(image, rng(seed)), expected)


def test_choice_by_probability() -> None:
    crops = [CenterCrop(size) for size in (1, 2, 3)]
    for p, expected in ((None, (200, 200, 200)), ([1, 0, 3], (150, 0, 450))):
        choice, generator = RandomChoice(crops, p), rng()
        sizes = [choice(coordinates(4, 4), generator).shape[0] for _ in range(600)]
        for size, count in zip((1, 2, 3), expected, strict=True):
            assert abs(sizes.count(size) - count) <= 55  # 4.5 standard deviations


def test_choices_that_are_none() -> None:
    with pytest.raises(ValueError, match="transforms is empty"):
        RandomChoice([])
    for p in ([1], [0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="expected 2 probabilities, one for each transform"):
            RandomChoice([Resize(3), Resize(4)], p)


# Normalize


def test_normalize() -> None:
    image, mean, std = noise(5, 6), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalized = Normalize(mean, std)(image, rng())
    assert normalized.dtype == np.float32
    expected = (image / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalized, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(Normalize(mean, std)(image), normalized)  # for one's own loops
    grey = Normalize([0.5], [0.25])(np.array([[[0], [255]]], dtype=np.uint8))
    assert grey.ravel().tolist() == [-2, 2]


def test_what_cannot_be_normalized() -> None:
    with pytest.raises(ValueError, match=r"mean is \[0\.5\] and std \[0\.5, 0\.5\]"):
        Normalize([0.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="std above 0"):
        Normalize([0.5], [0])
    with pytest.raises(ValueError, match=r"mean is 0\.5 and std 0\.5; expected one number of each"):
        Normalize(0.5, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"image is uint8 \(4, 4, 1\); expected uint8 \(H, W, 3\)"):
        Normalize([0.5] * 3, [0.5] * 3)(noise(4, 4, 1))
    with pytest.raises(ShapeError, match="image is float32"):
        Normalize([0.5], [0.5])(noise(4, 4, 1).astype(np.float32))


def test_repr_shows_the_settings() -> None:
    chain = Compose([Resize(40), RandomCrop(32, padding=4), RandomHorizontalFlip(), CenterCrop(3)])
    assert repr(chain) == (
        "Compose([Resize(size=40), RandomCrop(size=(32, 32), padding=4), "
        "RandomHorizontalFlip(p=0.5), CenterCrop(size=(3, 3))])"
    )
    assert repr(MixUp(alpha=0.2, num_classes=3)) == "MixUp(alpha=0.2, num_classes=3)"
    assert repr(RandomRotation(5)) == (
        "RandomRotation(degrees=(-5, 5), interpolation='nearest', expand=False, center=None, "
        "fill=0)"
    )
