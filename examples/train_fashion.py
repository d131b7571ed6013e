"""Clothes with a network of the functional API: 28 x 28 grey pixels in, one of ten kinds out.

Without --data it trains on built-in drawn digits instead of clothes, in about a minute. With --data
it trains on Fashion-MNIST's four idx files:

    python examples/train_fashion.py --data DATA/fashion_mnist
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tinyconv as tc
from tinyconv.data import Compose, RandomCrop, RandomHorizontalFlip
from tinyconv.train import (
    Settings,
    begin,
    clear_errors,
    digit_sets,
    flag,
    flag_of,
    parse,
    train_classifier,
)

CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class FashionSettings(Settings):
    size: int = flag(28, "height and width of the drawn digits, in pixels; Fashion-MNIST's are 28")
    epochs: int = flag_of(Settings, "epochs", 15)
    batch_size: int = flag_of(Settings, "batch_size", 64)
    lr: float = flag_of(Settings, "lr", 2e-3)
    weight_decay: float = flag(0.01, "decoupled weight decay (AdamW)")
    out: str = flag(
        "", "folder of the results (default: runs/fashion, of drawn digits runs/fashion-drawn)"
    )
    augment: str = flag(
        "",
        "light: mirror and shift the training images (default; of drawn digits none: a mirrored 2 "
        "is none)",
        choices=("none", "light"),
    )
    drawn_images: int = flag_of(Settings, "drawn_images", 2000)


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(FashionSettings, __doc__, arguments)
    drawn = settings.data is None
    settings = replace(
        settings,
        out=settings.out or ("runs/fashion-drawn" if drawn else "runs/fashion"),
        augment=settings.augment or ("none" if drawn else "light"),
    )
    with clear_errors():
        return train(settings)


def train(settings: FashionSettings) -> dict:
    begin(settings)
    train_set, test_set = digit_sets(settings, CLASSES)
    size = test_set.image(0).shape[0]
    model = tc.models.create("fashion", num_classes=len(train_set.classes), size=size)
    inputs = tc.models.inputs("fashion")
    augment = Compose([RandomHorizontalFlip(), RandomCrop(size, padding=2)])
    return train_classifier(
        settings,
        model=model,
        optimizer=tc.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        ),
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=augment if settings.augment == "light" else None,
    )


if __name__ == "__main__":
    main()
