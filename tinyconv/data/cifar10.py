"""CIFAR-10 in its binary version: 50,000 + 10,000 photos of 32 x 32 pixels in ten classes.

Format: records of 3073 bytes, one of label and then 1024 each of red, green and blue, row by row
(cs.toronto.edu/~kriz/cifar.html). The version for Python is not read: it is made of pickles, which
can run any code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyconv.data.dataset import ArrayDataset, PathLike, check_file
from tinyconv.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TRAIN_FILES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
TEST_FILES = ("test_batch.bin",)

_RECORD = 1 + 3 * 32 * 32


def cifar10(
    root: PathLike, train: bool = True, classes: Sequence[str] | None = None
) -> ArrayDataset:
    """The training or test part of the binary version in `root` or `root`/cifar-10-batches-bin,
    as uint8 images (N, 32, 32, 3).

    `classes=("cat", "dog")` takes the images of those classes alone, labelled 0, 1, ... in that
    order. Raises ValueError for a class that there is not, DataError for a missing file, one that
    does not consist of whole records, and a label above 9.
    """
    chosen = CLASSES if classes is None else tuple(classes)
    unknown = [name for name in chosen if name not in CLASSES]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"classes is {classes!r}; expected some of {', '.join(CLASSES)}, each once"
        )
    number = np.full(len(CLASSES), -1)  # of a class among the chosen; -1: left out
    number[[CLASSES.index(name) for name in chosen]] = range(len(chosen))
    images, labels = [], []
    for path in find_cifar10(root)["train" if train else "test"]:
        records = _read(path)
        new = number[records[:, 0]]
        planes = records[new >= 0, 1:].reshape(-1, 3, 32, 32)
        images.append(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))
        labels.append(new[new >= 0])
    return ArrayDataset(np.concatenate(images), np.concatenate(labels), chosen)


def find_cifar10(root: PathLike) -> dict[str, list[Path]]:
    """{"train": the five files, "test": the one}; DataError where one is missing."""
    root = Path(root)
    inside = root / "cifar-10-batches-bin"
    folder = inside if inside.is_dir() else root
    parts = {"train": TRAIN_FILES, "test": TEST_FILES}
    found = {part: [folder / name for name in names] for part, names in parts.items()}
    for path in (*found["train"], *found["test"]):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; expected the six files of CIFAR-10's binary version: "
                f"{', '.join((*TRAIN_FILES, *TEST_FILES))}"
            )
    return found


def _read(path: Path) -> np.ndarray:
    """The records of a file, uint8 (N, 3073)."""
    size = check_file(path).stat().st_size
    if size % _RECORD:
        raise DataError(
            f"{path}: {size:,} bytes; expected whole records of {_RECORD:,} "
            f"({10_000 * _RECORD:,} bytes for the published 10,000)"
        )
    try:
        records = np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
    if wrong.size:
        raise DataError(
            f"{path}: label {records[wrong[0], 0]} of image {wrong[0]} is out of range; "
            f"expected 0 to {len(CLASSES) - 1}"
        )
    return records
