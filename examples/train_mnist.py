"""Handwritten digits with a LeNet: 28 x 28 grey pixels in, one of ten digits out.

Without --data it trains on built-in drawn digits, in about half a minute. With --data it trains on
MNIST's four idx files (or any files of that kind), as they are or gzipped:

    python examples/train_mnist.py --data DATA/mnist --batch-size 4 --epochs 10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tinyconv as tc
from tinyconv.data import RandomAffine
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


@dataclass(frozen=True)
class MnistSettings(Settings):
    size: int = flag(28, "height and width of the drawn digits, in pixels; MNIST's are 28")
    out: str = flag(
        "", "folder of the results (default: runs/mnist, of drawn digits runs/mnist-drawn)"
    )
    augment: str = flag(
        "none",
        "affine: turn, shift and zoom the training digits a little",
        choices=("none", "affine"),
    )
    drawn_images: int = flag_of(Settings, "drawn_images", 6000)


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(MnistSettings, __doc__, arguments)
    folder = "runs/mnist-drawn" if settings.data is None else "runs/mnist"
    with clear_errors():
        return train(replace(settings, out=settings.out or folder))


def train(settings: MnistSettings) -> dict:
    begin(settings)
    train_set, test_set = digit_sets(settings)
    model = tc.models.create("lenet_mnist", num_classes=10, size=test_set.image(0).shape[0])
    inputs = tc.models.inputs("lenet_mnist")
    affine = RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1))
    return train_classifier(
        settings,
        model=model,
        optimizer=tc.optim.Adam(model.parameters(), lr=settings.lr),
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=affine if settings.augment == "affine" else None,
    )


if __name__ == "__main__":
    main()
