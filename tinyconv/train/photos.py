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
    images: int | None = flag(None, "take this many training images instead of all", int)
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
    train: Dataset
    test: Dataset
    stored = round(settings.size * ZOOM.get(settings.augment, 1))
    if settings.data is None:
        train = drawn_cats_and_dogs(settings.drawn_images, stored, settings.seed)
        return train, drawn_cats_and_dogs(600, settings.size, settings.seed + 1)
    root = catalogue.resolve(settings.data)
    if catalogue.holds("cifar10", root):
        to_size = Resize((settings.size, settings.size))
        train, test = (
            Transformed(cifar10(root, part, classes=("cat", "dog")), to_size)
            for part in (True, False)
        )
    else:
        train_folder, test_folder = find_splits(root)
        train = _photos(train_folder, stored, settings)
        if test_folder is None:
            say(f"no test folder beside {train_folder}: a fifth of its photos is held out for it")
            train, test = train.split(0.2, settings.seed)
            test = Transformed(test, Resize((settings.size, settings.size)))
        else:
            test = _photos(test_folder, settings.size, settings)
    if settings.images is not None and settings.images < len(train):
        _, train = train.split(settings.images / len(train), settings.seed)
    return train, test


def individuals(dataset: Dataset) -> list[str]:
    """For each image whom it shows, by a file name such as "horse07-3.jpg" (horse07); an image with
    another kind of name stands for itself. To be the `groups` of Dataset.split."""
    names = [dataset.name(index) for index in range(len(dataset))]
    found = [re.fullmatch(r"(\D+\d+)-\d+\.\w+", name) for name in names]
    return [
        match[1] if match else f"{name} {index}"
        for index, (match, name) in enumerate(zip(found, names, strict=True))
    ]


def _photos(folder: Path, size: int, settings: PhotoSettings) -> Dataset:
    """The photos of a folder; where its classes are called "cats" and "dogs", "cat" and "dog"."""
    found = ImageFolder(folder, size, on_error=settings.on_error, workers=settings.workers)
    say(found.report())
    plurals = {"cats": "cat", "dogs": "dog", "horses": "horse", "humans": "human"}
    found.classes = [plurals.get(name, name) for name in found.classes]
    return found
