"""Cats and dogs: a photo in, "cat" or "dog" out.

Without --data it trains on built-in drawn cats and dogs, in a minute or two. With --data it trains
on a folder of photos, one folder per class, also in Kaggle's layout:

    python examples/train_catdog.py --data DATA/cats_vs_dogs --size 64 --batch-size 32 --epochs 12
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tinyconv as tc
from tinyconv.data import (
    Compose,
    Dataset,
    ImageFolder,
    RandomCrop,
    RandomHorizontalFlip,
    drawn_cats_and_dogs,
    find_splits,
)
from tinyconv.train import Settings, clear_errors, flag, parse, train_classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of photos: ImageNet's, as is usual
OPTIMIZERS = {
    "adam": tc.optim.Adam,
    "adamw": tc.optim.AdamW,
    "rmsprop": tc.optim.RMSprop,
    "sgd": tc.optim.SGD,
}


@dataclass(frozen=True)
class CatDogSettings(Settings):
    size: int = flag(0, "height and width in pixels (default: 256, of drawn images 48)")
    epochs: int = flag(0, "passes over the images (default: 10, over drawn images 7)")
    batch_size: int = flag(20, "images in a step")
    lr: float = flag(5e-4, "learning rate at the start; it falls to 0 along half a cosine")
    out: str = flag(
        "", "folder of the results (default: runs/catdog, of drawn images runs/catdog-drawn)"
    )
    on_error: Literal["stop", "skip"] = flag(
        "stop", "what to do where photos cannot be read", choices=("stop", "skip")
    )
    model: str = flag("catdog", "network", choices=("catdog", "catdog_notebook", "catdog_wide"))
    optimizer: str = flag("adam", "update rule", choices=tuple(OPTIMIZERS))
    l1: float = flag(0.0, "weight of the L1 penalty on the weights")
    weight_decay: float = flag(0.0, "weight of the L2 penalty on the weights")
    augment: bool = flag(True, "flip and shift the training images at random")
    drawn_images: int = flag(2400, "training images to draw where there is no --data")


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(CatDogSettings, __doc__, arguments)
    drawn = settings.data is None
    settings = replace(
        settings,
        size=settings.size or (48 if drawn else 256),
        out=settings.out or ("runs/catdog-drawn" if drawn else "runs/catdog"),
        epochs=settings.epochs or (7 if drawn else 10),
    )
    with clear_errors():
        return train(settings)


def train(settings: CatDogSettings) -> dict:
    tc.use_backend(settings.backend)
    tc.manual_seed(settings.seed)
    train_set, test_set = data_sets(settings)
    model = tc.models.create(settings.model, num_classes=len(train_set.classes), size=settings.size)
    optimizer = OPTIMIZERS[settings.optimizer](
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, l1=settings.l1
    )
    augmentation = Compose(
        [RandomHorizontalFlip(), RandomCrop(settings.size, padding=settings.size // 16)]
    )
    return train_classifier(
        settings,
        model=model,
        optimizer=optimizer,
        scheduler=tc.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs),
        train=train_set,
        test=test_set,
        mean=MEAN,
        std=STD,
        augment=augmentation if settings.augment else None,
    )


def data_sets(settings: CatDogSettings) -> tuple[Dataset, Dataset]:
    """Training and test images: of the folder, or drawn where there is none."""
    if settings.data is None:
        return (
            drawn_cats_and_dogs(settings.drawn_images, settings.size, settings.seed),
            drawn_cats_and_dogs(600, settings.size, settings.seed + 1),
        )
    train_folder, test_folder = find_splits(settings.data)
    train_set = photos(train_folder, settings)
    if test_folder is None:
        print(f"no test folder beside {train_folder}: a fifth of its photos is held out for it")
        return train_set.split(0.2, settings.seed)
    return train_set, photos(test_folder, settings)


def photos(folder: Path, settings: CatDogSettings) -> Dataset:
    """The photos of a folder; where its classes are called "cats" and "dogs", "cat" and "dog"."""
    found = ImageFolder(folder, settings.size, on_error=settings.on_error, workers=settings.workers)
    print(found.report())
    if found.classes == ["cats", "dogs"]:
        found.classes = ["cat", "dog"]
    return found


if __name__ == "__main__":
    main()
