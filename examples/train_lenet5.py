"""LeNet-5 of 1998 on few photos of cats and dogs: "95 % dog, 5 % cat".

Without --data it trains on built-in drawn cats and dogs. With --data it trains on a part of a
folder of photos, by default 800 of them, as many as one may collect by oneself; compare

    python examples/train_lenet5.py --data DATA/cats_vs_dogs --augment none
    python examples/train_lenet5.py --data DATA/cats_vs_dogs --augment crop
    python examples/transfer_catdog.py --data DATA/cats_vs_dogs --images 800
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
    flag,
    flag_of,
    parse,
    photo_sets,
    train_classifier,
)


@dataclass(frozen=True)
class LeNet5Settings(PhotoSettings):
    size: int = flag(32, "height and width in pixels, 32 as in 1998 or more")
    epochs: int = flag_of(PhotoSettings, "epochs", 60)
    augment: str = flag_of(PhotoSettings, "augment", "crop")
    images: int | None = flag_of(PhotoSettings, "images", 800)
    out: str = flag(
        "", "folder of the results (default: runs/lenet5, of drawn images runs/lenet5-drawn)"
    )
    drawn_images: int = flag_of(PhotoSettings, "drawn_images", 800)


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(LeNet5Settings, __doc__, arguments)
    folder = "runs/lenet5-drawn" if settings.data is None else "runs/lenet5"
    with clear_errors():
        return train(replace(settings, out=settings.out or folder))


def train(settings: LeNet5Settings) -> dict:
    begin(settings, "lenet5")
    train_set, test_set = photo_sets(settings)
    model = tc.models.create(
        "lenet5", num_classes=len(train_set.classes), size=settings.size, in_channels=3
    )
    return train_classifier(
        settings,
        model=model,
        optimizer=tc.optim.Adam(model.parameters(), lr=settings.lr),
        train=train_set,
        test=test_set,
        mean=(0.5, 0.5, 0.5),  # brings pixels to [-1, 1], where tanh is at home
        std=(0.5, 0.5, 0.5),
        augment=augmentation(settings),
    )


if __name__ == "__main__":
    main()
