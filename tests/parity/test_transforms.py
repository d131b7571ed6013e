"""Transforms: with the parameters that torchvision drew the same pixels, and draws alike."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.transforms import (
    CenterCrop,
    ColorJitter,
    CutMix,
    MixUp,
    Normalize,
    RandomAffine,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    colour,
)
from tinyconv.data.transforms.geometry import affine, rotate
from tinyconv.data.transforms.pillow import from_pillow, to_pillow
from tinyconv.data.transforms.trivial import OPERATIONS

torch = pytest.importorskip("torch")

from .vision import transforms  # noqa: E402

v2 = transforms()

SHAPES = [(32, 32, 3), (31, 47, 3), (40, 25, 1)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
each_interpolation = pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])


def photo(shape: tuple[int, int, int]) -> np.ndarray:
    """Something with edges, slopes and noise."""
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5) + np.cos(y / 7), x / width, (y > x) * 1.0], axis=2)
    noise = np.random.default_rng(0).random(waves.shape)
    return (255 * (waves - waves.min() + noise) / 4).astype(np.uint8)[:, :, :channels]


def equal(ours: np.ndarray, theirs: Image.Image, exactly: bool = True) -> None:
    """Equal bytes, or but for single steps of 255: what is interpolated is cut to whole numbers,
    and a last bit of the map can decide which."""
    expected = from_pillow(theirs)
    assert ours.shape == expected.shape
    differences = np.abs(ours.astype(int) - expected)
    assert differences.max() <= (0 if exactly else 1)
    assert (differences > 0).mean() < 0.01


def assert_same_distribution(ours, theirs) -> None:
    """Kolmogorov and Smirnov's test for two samples of one size, p = 0.001."""
    both = np.sort(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / len(ours))


# Sizes and places


@each_shape
def test_resize_and_crop(shape):
    image = photo(shape)
    picture = to_pillow(image)
    for size in (20, 57, (13, 40)):
        equal(Resize(size)(image, None), v2.Resize(size)(picture))
    for size in (24, (25, 25), (10, 17)):
        equal(CenterCrop(size)(image, None), v2.CenterCrop(size)(picture))


@each_shape
def test_resized_crop(shape):
    image, picture = photo(shape), to_pillow(photo(shape))
    theirs = v2.RandomResizedCrop((20, 24))
    ours = RandomResizedCrop((20, 24))
    for seed in range(20):
        torch.manual_seed(seed)
        place = theirs.make_params([picture])
        ours.draw = lambda height, width, rng, place=place: tuple(place.values())
        equal(ours(image, None), theirs.transform(picture, place))


@pytest.mark.parametrize("settings", [{}, {"scale": (0.3, 0.9), "ratio": (0.2, 3)}])
@pytest.mark.parametrize("shape", [(200, 300), (30, 20), (20, 90), (90, 20)])
def test_parts_are_drawn_alike(shape, settings):
    """Also where few draws, or none, fit into the image."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    theirs, ours = v2.RandomResizedCrop(8, **settings), RandomResizedCrop(8, **settings)
    picture = Image.new("L", shape[::-1])
    found = np.array([ours.draw(*shape, rng) for _ in range(1000)])
    expected = np.array([list(theirs.make_params([picture]).values()) for _ in range(1000)])
    for n in range(4):  # top, left, height, width
        assert_same_distribution(found[:, n], expected[:, n])


# Geometry


@each_shape
@each_interpolation
@pytest.mark.parametrize("center", [None, (3, 12)])
def test_affine(shape, interpolation, center):
    image, picture = photo(shape), to_pillow(photo(shape))
    theirs = v2.RandomAffine(
        180, (0.3, 0.2), (0.5, 1.5), (-40, 40, -30, 30), interpolation, 77, center
    )
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = theirs.make_params([picture])
        ours = affine(image, **drawn, interpolation=interpolation, fill=77, center=center)
        equal(ours, theirs.transform(picture, drawn), interpolation == "nearest")


@each_shape
@each_interpolation
@pytest.mark.parametrize(("expand", "center"), [(False, None), (True, None), (False, (3, 12))])
def test_rotation(shape, interpolation, expand, center):
    image, picture = photo(shape), to_pillow(photo(shape))
    fill = (10, 20, 30)[: shape[2]]
    theirs = v2.RandomRotation(180, interpolation, expand, center, fill)
    for angle in (*range(-180, 181, 45), 17.3, -99.9):
        ours = rotate(image, angle, interpolation, expand, center, fill)
        equal(ours, theirs.transform(picture, {"angle": angle}))


def test_affine_maps_are_drawn_alike():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = ((-20, 50), (0.2, 0.1), (0.5, 1.5), (-5, 10, 0, 20))
    ours, theirs = RandomAffine(*settings), v2.RandomAffine(*settings)
    picture = Image.new("L", (300, 200))

    def numbers(angle, translate, scale, shear):
        return [angle, *translate, scale, *shear]

    found = np.array([numbers(*ours.draw(200, 300, rng)) for _ in range(1000)])
    expected = np.array([numbers(**theirs.make_params([picture])) for _ in range(1000)])
    for n in range(6):
        assert_same_distribution(found[:, n], expected[:, n])


# Colours


@each_shape
def test_colours(shape):
    image, picture = photo(shape), to_pillow(photo(shape))
    for factor in (0, 0.3, 0.99, 1, 1.5, 3):
        for name in ("brightness", "contrast", "saturation", "sharpness"):
            ours = getattr(colour, f"adjust_{name}")(image, factor)
            equal(ours, getattr(v2.functional, f"adjust_{name}")(picture, factor))
    for turn in (-0.5, -0.21, -0.001, 0, 0.1, 0.499, 0.5):
        equal(colour.adjust_hue(image, turn), v2.functional.adjust_hue(picture, turn))
    for bits in range(1, 9):
        equal(colour.posterize(image, bits), v2.functional.posterize(picture, bits))
    for threshold in (0, 0.5, 100, 100.5, 255, 256):
        equal(colour.solarize(image, threshold), v2.functional.solarize(picture, threshold))
    equal(colour.autocontrast(image), v2.functional.autocontrast(picture))
    equal(colour.equalize(image), v2.functional.equalize(picture))


@each_shape
def test_jitter(shape):
    """torchvision's order and factors, through a generator that repeats them."""
    image, picture = photo(shape), to_pillow(photo(shape))
    settings = (0.4, (0.5, 2), 1.5, 0.3)
    theirs, ours = v2.ColorJitter(*settings), ColorJitter(*settings)
    ranges = [theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue]
    assert list(vars(ours).values()) == ranges
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = theirs.make_params([picture])
        order = drawn["fn_idx"].numpy()
        factors = iter([list(drawn.values())[1 + n] for n in order])
        fixed = SimpleNamespace(permutation=lambda n, order=order: order)
        fixed.uniform = lambda low, high, factors=factors: next(factors)
        equal(ours(image, fixed), theirs.transform(picture, drawn))


# TrivialAugment

SPACE = v2.TrivialAugmentWide._AUGMENTATION_SPACE


@pytest.mark.parametrize("bins", [2, 11, 31])
def test_trivial_augment_has_the_same_magnitudes(bins):
    assert set(OPERATIONS) == set(SPACE)
    for name, operation in OPERATIONS.items():
        magnitudes, signed = SPACE[name]
        assert operation.signed == signed
        ours, theirs = operation.magnitudes(bins), magnitudes(bins, 32, 32)
        if theirs is None:
            assert ours == [0] * bins
        elif name == "Posterize":
            assert [round(n) for n in ours] == theirs.tolist()
        elif name == "Solarize":  # there a share of 255
            np.testing.assert_allclose(ours, 255 * theirs, atol=1e-4)
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@each_shape
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_trivial_augment(shape, name, interpolation):
    image, picture = photo(shape), to_pillow(photo(shape))
    theirs = v2.TrivialAugmentWide(interpolation=interpolation, fill=50)
    how = {"interpolation": interpolation, "fill": 50}
    scale = 1 / 255 if name == "Solarize" else 1
    for magnitude in OPERATIONS[name].magnitudes(31):
        for signed in (magnitude, -magnitude) if OPERATIONS[name].signed else (magnitude,):
            ours = OPERATIONS[name].apply(image, signed, how)
            given = round(signed) if name == "Posterize" else signed * scale
            expected = theirs._apply_image_or_video_transform(
                picture, name, given, interpolation, theirs._fill
            )
            equal(ours, expected, interpolation == "nearest")


# Erasing, mixing, normalising


@pytest.mark.parametrize("shape", [(200, 300), (30, 20), (10, 90)])
def test_erased_parts_are_drawn_alike(shape):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = {"scale": (0.05, 0.6), "ratio": (0.2, 3)}
    ours, theirs = RandomErasing(**settings), v2.RandomErasing(**settings)
    blank = torch.zeros(1, *shape)
    found = np.array([ours.draw(*shape, rng) for _ in range(1000)])
    drawn = [theirs.make_params([blank]) for _ in range(1000)]
    expected = np.array([[d["i"], d["j"], d["h"], d["w"]] for d in drawn])
    expected[[d["v"] is None for d in drawn]] = 0  # nothing fitted and nothing is erased
    for n in range(4):  # top, left, height, width
        assert_same_distribution(found[:, n], expected[:, n])


LABELS = np.array([2, 0, 1, 2, 2, 3])


def batch():
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 17, 3), dtype=np.uint8)
    planes = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    return images, planes, torch.from_numpy(LABELS)


@pytest.mark.parametrize("share", [0.0, 0.123, 0.5, 0.9, 1.0])
def test_mixup(share, parity):
    images, planes, labels = batch()
    mixed, soft = MixUp(num_classes=4)(images, LABELS, SimpleNamespace(beta=lambda *a: share))
    theirs = v2.MixUp(num_classes=4)
    drawn = {"labels": labels, "batch_size": 6, "lam": share}
    parity.equal(soft, theirs.transform(labels, drawn))
    expected = np.moveaxis(theirs.transform(planes.float(), drawn).numpy(), 1, 3)
    assert np.abs(mixed - expected).max() <= 0.5 + 1e-4  # bytes here, floats there


@pytest.mark.parametrize("share", [0.0, 0.123, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("middle", [(0, 0), (6, 3), (16, 11)])
def test_cutmix(share, middle, parity, monkeypatch):
    images, planes, labels = batch()
    theirs = v2.CutMix(num_classes=4)
    theirs._dist = SimpleNamespace(sample=lambda shape: share)
    place = iter(middle)
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor([next(place)]))
    expected, expected_soft = theirs(planes, labels)
    place = iter(middle)  # x, then y
    fixed = SimpleNamespace(beta=lambda *a: share, integers=lambda high: next(place))
    mixed, soft = CutMix(num_classes=4)(images, LABELS, fixed)
    parity.equal(np.moveaxis(mixed, 3, 1), expected)
    parity.equal(soft, expected_soft)


def test_normalize(parity):
    image, mean, std = photo((9, 11, 3)), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    floats = v2.functional.to_dtype(
        v2.functional.to_image(to_pillow(image)), torch.float32, scale=True
    )
    expected = v2.Normalize(mean, std)(floats).permute(1, 2, 0)
    parity.equal(Normalize(mean, std)(image), np.ascontiguousarray(expected.numpy()))
