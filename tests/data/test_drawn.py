"""The drawn data sets: deterministic, balanced, varied, and no prey for a linear model."""

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.drawn import drawn_cats_and_dogs, drawn_digits
from tinyconv.data.drawn.canvas import Canvas, closed_curve, open_curve, ribbon, shade
from tinyconv.data.drawn.digits import HANDWRITING, WRITINGS, draw_digit

SETS = [
    pytest.param(drawn_cats_and_dogs, 64, 3, ["cat", "dog"], id="cats_and_dogs"),
    pytest.param(drawn_digits, 28, 1, list("0123456789"), id="digits"),
]


@pytest.fixture(scope="module")
def animals() -> ArrayDataset:
    return drawn_cats_and_dogs(800, size=32, seed=3)


@pytest.fixture(scope="module")
def digits() -> ArrayDataset:
    return drawn_digits(1000, seed=3)


@pytest.mark.parametrize(("make", "size", "channels", "classes"), SETS)
def test_shapes_dtypes_and_names(make, size, channels, classes):
    dataset = make(20)
    assert dataset.images.shape == (20, size, size, channels)
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert dataset.classes == classes
    assert dataset.drawn
    assert len(dataset) == 20


@pytest.mark.parametrize(("make", "size", "channels", "classes"), SETS)
def test_classes_are_balanced_and_take_turns(make, size, channels, classes):
    labels = make(20).labels
    assert np.bincount(labels).tolist() == [20 // len(classes)] * len(classes)
    assert labels[: len(classes)].tolist() == list(range(len(classes)))


@pytest.mark.parametrize(("make", "size", "channels", "classes"), SETS)
def test_same_seed_same_pictures_other_seed_others(make, size, channels, classes):
    first = make(10, seed=4).images
    np.testing.assert_array_equal(first, make(10, seed=4).images)
    other = make(10, seed=5).images
    assert all((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("make", "size", "channels", "classes"), SETS)
def test_picture_does_not_depend_on_count(make, size, channels, classes):
    np.testing.assert_array_equal(make(7).images, make(23).images[:7])


@pytest.mark.parametrize("make", [drawn_cats_and_dogs, drawn_digits])
@pytest.mark.parametrize("size", [16, 33, 127, 256])
def test_any_size_from_16_on(make, size):
    assert make(3, size=size).images.shape[1:3] == (size, size)


def test_other_size_shows_the_same_animal():
    """Halved, the larger picture is nearly the smaller one; another animal's is far from it."""
    small = drawn_cats_and_dogs(20, size=64).images.astype(float)
    large = drawn_cats_and_dogs(20, size=128).images.astype(float)
    halved = large.reshape(20, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    same = np.abs(small - halved).mean(axis=(1, 2, 3))
    other = np.abs(small - np.roll(halved, 1, axis=0)).mean(axis=(1, 2, 3))
    assert same.max() < 15
    assert same.max() < other.min()


@pytest.mark.parametrize("make", [drawn_cats_and_dogs, drawn_digits])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count is -1; expected at least 1"),
        ({"count": 0}, "count is 0; expected at least 1"),
        ({"count": 2, "size": 15}, "size is 15; expected at least 16"),
        ({"count": 2, "seed": -3}, "seed is -3; expected 0 or more"),
    ],
)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_animals_vary(animals):
    """Brightness, colour and contrast spread widely, and no two pictures are near each other."""
    pictures = animals.images.astype(float)
    assert pictures.mean(axis=(1, 2, 3)).std() > 20
    assert (pictures.mean(axis=(1, 2)) - pictures.mean(axis=(1, 2, 3))[:, None]).std() > 8
    assert pictures.std(axis=0).min() > 30  # of every pixel over the data set
    flat = pictures[:100].reshape(100, -1)
    distance = np.abs(flat[:, None] - flat).mean(axis=2)
    assert distance[~np.eye(100, dtype=bool)].min() > 10


def test_digits_vary_and_are_white_on_black(digits):
    pictures = digits.images[:, :, :, 0].astype(float)
    assert (pictures.max(axis=(1, 2)) > 120).all()
    assert np.median(pictures) < 20
    border = np.concatenate([pictures[:, [0, -1]].ravel(), pictures[:, :, [0, -1]].ravel()])
    assert border.mean() < 10
    for digit in range(10):
        ink = (pictures[digits.labels == digit] > 100).sum(axis=(1, 2))
        assert ink.max() > 2 * ink.min()


def linear_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray):
    """Test accuracy of ridge regression onto the one-hot classes, the best of four penalties."""
    centre = train.mean(axis=0)
    train, test = (train - centre) / 255, (test - centre) / 255
    targets = np.eye(labels.max() + 1)[labels]
    gram = train @ train.T
    best = 0.0
    for penalty in (1.0, 30.0, 300.0, 3000.0):
        dual = np.linalg.solve(gram + penalty * np.eye(len(gram)), targets - targets.mean(axis=0))
        guess = (test @ (train.T @ dual)).argmax(axis=1)
        best = max(best, float((guess == truth).mean()))
    return best


def test_linear_model_does_not_tell_cats_from_dogs(animals):
    """Neither the raw pixels nor the mean and the spread of the colours give the class away."""
    pixels = animals.images.reshape(len(animals), -1).astype(float)
    colours = np.concatenate(
        [animals.images.mean(axis=(1, 2)), animals.images.std(axis=(1, 2))], axis=1
    )
    for features in (pixels, colours):
        half = len(animals) // 2
        accuracy = linear_accuracy(
            features[:half], animals.labels[:half], features[half:], animals.labels[half:]
        )
        assert accuracy < 0.7


def test_linear_model_does_not_solve_digits(digits):
    pixels = digits.images.reshape(len(digits), -1).astype(float)
    accuracy = linear_accuracy(pixels[:700], digits.labels[:700], pixels[700:], digits.labels[700:])
    assert 0.6 < accuracy < 0.95  # digits of one class are alike, yet not that alike


def test_every_digit_has_several_writings():
    assert HANDWRITING.strip().count("\n") + 1 == sum(map(len, WRITINGS))
    assert min(map(len, WRITINGS)) >= 2
    for writing in (strokes for writings in WRITINGS for strokes in writings):
        points = np.concatenate(writing)
        assert np.abs(points).max() <= 0.8
        assert np.ptp(points[:, 1]) > 1.3  # as tall as a digit


def test_picture_of_one_digit():
    picture = draw_digit(8, 40, np.random.default_rng(0))
    assert picture.shape == (40, 40, 1)
    assert picture.dtype == np.uint8


def test_curves_pass_through_their_control_points():
    control = [(0.0, 0.0), (1.0, 2.0), (3.0, 1.0), (4.0, -2.0)]
    np.testing.assert_allclose(open_curve(control)[::6], control, atol=1e-12)
    np.testing.assert_allclose(closed_curve(control)[::6], control, atol=1e-12)
    np.testing.assert_allclose(closed_curve(control[:2], control[2:]), closed_curve(control))


def test_curve_through_points_on_a_line_is_the_line():
    curve = open_curve([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
    np.testing.assert_allclose(curve[:, 1], 1 + 2 * curve[:, 0])


def test_ribbon_along_a_line():
    path = np.array([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)])
    outline = ribbon(path, 2.0, 4.0)
    expected = [(-1, 0), (0, 1), (1, 1.5), (2, 2), (4, 0), (2, -2), (1, -1.5), (0, -1)]
    np.testing.assert_allclose(outline, expected)


def test_shade():
    assert shade((100, 200, 0), 0.5) == (50, 100, 0)
    assert shade((100, 200, 0), 1.0) == (100, 200, 0)
    assert shade((155, 205, 255), 1.5) == (205, 230, 255)


def test_nested_frames():
    """A quarter turn takes x to y; the inner frame's units are the outer's times the scale."""
    canvas = Canvas.on(Image.new("RGB", (200, 200)))
    inner = canvas.frame((0.5, 0.0), 0.5, np.pi / 2).frame((1.0, 0.0), (-0.5, 1.0))
    np.testing.assert_allclose(inner.origin, (150, 150))
    np.testing.assert_allclose(np.array([1.0, 0.0]) @ inner.matrix, (0, -25), atol=1e-12)
    np.testing.assert_allclose(np.array([0.0, 1.0]) @ inner.matrix, (-50, 0), atol=1e-12)
