"""What the examples on small grey images share: their data sets."""

from __future__ import annotations

from collections.abc import Sequence

from tinyconv.data import Dataset, catalogue, drawn_digits, mnist
from tinyconv.train.settings import Settings


def digit_sets(settings: Settings, classes: Sequence[str] | None = None) -> tuple[Dataset, Dataset]:
    """(training, test) images: idx files of settings.data, or drawn digits where that is None.

    `classes` names those of the files, by default "0" to "9". Raises DataError for a folder that
    is missing or does not hold MNIST's four files.
    """
    if settings.data is not None:
        root = catalogue.resolve(settings.data)
        return mnist(root, train=True, classes=classes), mnist(root, train=False, classes=classes)
    return (
        drawn_digits(settings.drawn_images, settings.size, settings.seed),
        drawn_digits(1000, settings.size, settings.seed + 1),
    )
