"""What the examples on photos share: flags, the data sets, and the choice of augmentations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinyconv.data import (
    ColorJitter,
    Compose,
    Dataset,
    ImageFolder,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transformed,
    TrivialAugmentWide,
    catalogue,
    cifar10,
    drawn_cats_and_dogs,
    find_splits,
)
from tinyconv.data.transforms import Transform
from tinyconv.train.progress import say
from tinyconv.train.settings import Settings, flag

# By name, what --augment does to images of a size; photos for "crop" and "strong" are kept larger
# by ZOOM, so that a crop seldom has to be enlarged.
AUGMENTATIONS: dict[str, Callable[[int], list[Transform]]] = {
    "none": lambda size: [],
    "light": lambda size: [RandomHorizontalFlip(), RandomCrop(size, padding=size // 16)],
    "affine": lambda size: [
        RandomHorizontalFlip(),
        RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10),
    ],
    "crop": lambda size: [RandomResizedCrop(size, scale=(0.5, 1.0)), RandomHorizontalFlip()],
    "strong": lambda size: [
        RandomResizedCrop(size, scale=(0.3, 1.0)),
        RandomHorizontalFlip(),
        ColorJitter(brightness=0.5, contrast=0.5, saturation=0.8, hue=0.3),
        RandomErasing(p=0.25),
    ],
    "trivial": lambda size: [RandomHorizontalFlip(), TrivialAugmentWide()],
}
ZOOM = {"crop": 1.3, "strong": 1.3}


@dataclass(frozen=True)
class PhotoSettings(Settings):
    """The flags of every example that learns from photos."""

    augment: str = flag(
        "light", "random changes of the training images", choices=tuple(AUGMENTATIONS)
    )
    images: int | None = flag(
        None, "take about this many training images, as many of each class, instead of all", int
    )
    on_error: Literal["stop", "skip"] = flag(
        "stop", "what to do where photos cannot be read", choices=("stop", "skip")
    )


def augmentation(settings: PhotoSettings) -> Transform | None:
    """The transform that settings.augment names, None for "none"."""
    transforms = AUGMENTATIONS[settings.augment](settings.size)
    return Compose(transforms) if transforms else None


def photo_sets(settings: PhotoSettings) -> tuple[Dataset, Dataset]:
    """(training, test) images, of settings.data or, where that is None, drawn.

    Test images are settings.size in height and width, training images larger where the
    augmentation cuts them to size. A folder without a test part lends it a fifth of its images.
    Raises DataError for a folder that is missing or holds no photos.
    """
    size, seed, limit = settings.size, settings.seed, settings.images
    stored = round(size * ZOOM.get(settings.augment, 1))
    if settings.data is None:
        count = min(settings.drawn_images, limit or settings.drawn_images)
        return drawn_cats_and_dogs(count, stored, seed), drawn_cats_and_dogs(600, size, seed + 1)
    root = catalogue.resolve(settings.data)
    if catalogue.holds("cifar10", root):
        train: Dataset = cifar10(root, train=True, classes=("cat", "dog"))
        test: Dataset = cifar10(root, train=False, classes=("cat", "dog"))
        if limit is not None and limit < len(train):
            _, train = train.split(limit / len(train), seed)
        return at_size(train, (stored, stored)), at_size(test, (size, size))
    train_folder, test_folder = find_splits(root)
    if test_folder is not None:
        return _photos(train_folder, stored, settings, limit), _photos(test_folder, size, settings)
    say(f"no test folder beside {train_folder}: a fifth of its photos is held out for it")
    photos = _photos(train_folder, stored, settings, limit and round(limit / 0.8))
    train, test = photos.split(0.2, seed, individuals(photos))
    return train, at_size(test, (size, size))


def default_size(data: str | None, photos: int, drawn: int) -> int:
    """The size for images of settings.data: that for photos, for drawn images, or CIFAR-10's 32."""
    if data is None:
        return drawn
    return 32 if catalogue.holds("cifar10", catalogue.resolve(data)) else photos


def individuals(dataset: Dataset) -> list[str]:
    """For each image whom it shows, by a file name such as "horse07-3.jpg" (horse07); an image with
    another kind of name stands for itself. To be the `groups` of Dataset.split."""
    names = [dataset.name(index) for index in range(len(dataset))]
    found = [re.fullmatch(r"(\D+\d+)-\d+\.\w+", name) for name in names]
    return [
        match[1] if match else f"{name} {index}"
        for index, (match, name) in enumerate(zip(found, names, strict=True))
    ]


def at_size(dataset: Dataset, size: tuple[int, int]) -> Dataset:
    """`dataset` with its images at `size` (height, width), itself where they are."""
    same = dataset.image(0).shape[:2] == size
    return dataset if same else Transformed(dataset, Resize(size))


def _photos(folder: Path, size: int, settings: PhotoSettings, limit: int | None = None) -> Dataset:
    """The photos of a folder; where its classes are called "cats" and "dogs", "cat" and "dog"."""
    found = ImageFolder(
        folder,
        size,
        on_error=settings.on_error,
        workers=settings.threads,
        limit=limit,
        seed=settings.seed,
    )
    say(found.report())
    plurals = {"cats": "cat", "dogs": "dog", "horses": "horse", "humans": "human"}
    found.classes = [plurals.get(name, name) for name in found.classes]
    return found
