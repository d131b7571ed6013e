"""Handwritten digits with a LeNet: 28 x 28 grey pixels in, one of ten digits out.

Without --data it trains on built-in drawn digits, in about half a minute. With --data it trains on
MNIST's four idx files (or any files of that kind), as they are or gzipped:

    python examples/train_mnist.py --data DATA/mnist --batch-size 4 --epochs 10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tinyconv as tc
from tinyconv.data import Dataset, drawn_digits, mnist
from tinyconv.train import Settings, clear_errors, flag, parse, train_classifier

MEAN, STD = (0.5,), (0.5,)  # brings pixels to [-1, 1]


@dataclass(frozen=True)
class MnistSettings(Settings):
    size: int = flag(28, "height and width of the drawn digits, in pixels; MNIST's are 28")
    epochs: int = flag(10, "passes over the training images")
    out: str = flag(
        "", "folder of the results (default: runs/mnist, of drawn digits runs/mnist-drawn)"
    )
    drawn_images: int = flag(6000, "training images to draw where there is no --data")


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(MnistSettings, __doc__, arguments)
    folder = "runs/mnist-drawn" if settings.data is None else "runs/mnist"
    with clear_errors():
        return train(replace(settings, out=settings.out or folder))


def train(settings: MnistSettings) -> dict:
    tc.use_backend(settings.backend)
    tc.manual_seed(settings.seed)
    train_set, test_set = data_sets(settings)
    settings = replace(settings, size=train_set.image(0).shape[0])
    model = tc.models.create("lenet_mnist", num_classes=10, size=settings.size)
    optimizer = tc.optim.Adam(model.parameters(), lr=settings.lr)
    return train_classifier(
        settings,
        model=model,
        optimizer=optimizer,
        scheduler=tc.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs),
        train=train_set,
        test=test_set,
        mean=MEAN,
        std=STD,
    )


def data_sets(settings: MnistSettings) -> tuple[Dataset, Dataset]:
    """Training and test images: MNIST's, or drawn where there is no folder."""
    if settings.data is not None:
        return mnist(settings.data, train=True), mnist(settings.data, train=False)
    return (
        drawn_digits(settings.drawn_images, settings.size, settings.seed),
        drawn_digits(1000, settings.size, settings.seed + 1),
    )


if __name__ == "__main__":
    main()
