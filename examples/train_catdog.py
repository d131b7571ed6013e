r"""Cats and dogs: a photo in, "cat" or "dog" out.

Without --data it trains on built-in drawn cats and dogs, in a minute. With --data it trains on a
folder of photos, one folder per class, also in Kaggle's layout:

    python examples/train_catdog.py --data DATA/cats_vs_dogs --size 96 --augment crop \
        --batch-size 32 --epochs 30
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tinyconv as tc
from tinyconv.train import (
    PhotoSettings,
    augmentation,
    begin,
    clear_errors,
    default_size,
    flag,
    flag_of,
    parse,
    photo_sets,
    train_classifier,
)

OPTIMIZERS = {
    "adam": tc.optim.Adam,
    "adamw": tc.optim.AdamW,
    "rmsprop": tc.optim.RMSprop,
    "sgd": tc.optim.SGD,
}
LEAST = {"catdog": 16, "catdog_notebook": 190}  # the size that a network needs


@dataclass(frozen=True)
class CatDogSettings(PhotoSettings):
    size: int = flag(
        0, "height and width in pixels (default: 256, of CIFAR-10 32, of drawn images 48)"
    )
    epochs: int = flag(0, "passes over the images (default: 10, over drawn images 7)")
    batch_size: int = flag_of(PhotoSettings, "batch_size", 20)
    lr: float = flag_of(PhotoSettings, "lr", 5e-4)
    out: str = flag(
        "", "folder of the results (default: runs/catdog, of drawn images runs/catdog-drawn)"
    )
    model: str = flag("catdog", "network", choices=("catdog", "catdog_notebook"))
    optimizer: str = flag("adam", "update rule", choices=tuple(OPTIMIZERS))
    l1: float = flag(0.0, "weight of the L1 penalty on the weights")
    weight_decay: float = flag(0.0, "weight of the L2 penalty on the weights")


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(CatDogSettings, __doc__, arguments)
    drawn = settings.data is None
    with clear_errors():
        settings = replace(
            settings,
            size=settings.size
            or max(LEAST[settings.model], default_size(settings.data, photos=256, drawn=48)),
            out=settings.out or ("runs/catdog-drawn" if drawn else "runs/catdog"),
            epochs=settings.epochs or (7 if drawn else 10),
        )
        return train(settings)


def train(settings: CatDogSettings) -> dict:
    begin(settings, settings.model)
    train_set, test_set = photo_sets(settings)
    model = tc.models.create(settings.model, num_classes=len(train_set.classes), size=settings.size)
    optimizer = OPTIMIZERS[settings.optimizer](
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, l1=settings.l1
    )
    inputs = tc.models.inputs(settings.model)
    return train_classifier(
        settings,
        model=model,
        optimizer=optimizer,
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=augmentation(settings),
    )


if __name__ == "__main__":
    main()
