"""Labelled images: what every data set offers, one held in an array, and parts of either."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tinyconv.errors import DataError

PathLike = str | os.PathLike[str]


class Dataset:
    """Images with class labels, the base of every data set.

    A subclass sets `classes` (the class names) and `labels` (int64 (N,), positions in `classes`)
    and defines `image`. Images are uint8 (H, W, C) with C = 3 (RGB) or 1 (grey).
    """

    classes: list[str]
    labels: np.ndarray
    drawn: bool = False  # True for pictures that this package drew: no result on them is a real one
    in_memory: bool = False  # True where `gather` copies from one array instead of reading images

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8 (H, W, C), the same at every call; not to be written to."""
        raise TypeError(f"{type(self).__name__} defines no image")

    def name(self, index: int) -> str:
        """What people call image `index`: its file name, or "#12" where there is none."""
        return f"#{index}"

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (N,) as one uint8 array (N, H, W, C)."""
        return stack(self, indices, (self.image(int(index)) for index in indices))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Subset:
        """The images at `indices`, in that order, as a data set that copies nothing."""
        return Subset(self, indices)

    def split(
        self, fraction: float, seed: int, groups: Sequence[str] | None = None
    ) -> tuple[Subset, Subset]:
        """(rest, part): `part` holds `fraction` of each class, drawn from `seed`; order is kept.

        `groups` names for each image what belongs together, such as the individual that it shows:
        a group stays on one side, and `fraction` counts groups. Every class with two images (two
        groups) or more is present on both sides. Raises ValueError unless 0 < fraction < 1,
        DataError where no class has two.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a number between 0 and 1")
        if groups is not None and len(groups) != len(self):
            raise ValueError(f"groups: {len(groups)} names for {len(self)} images")
        generator = np.random.Generator(np.random.Philox(seed))
        in_part = np.zeros(len(self), dtype=bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            units = members if groups is None else np.unique(np.asarray(groups)[members])
            units = generator.permutation(units)
            if len(units) > 1:
                count = min(max(round(fraction * len(units)), 1), len(units) - 1)
                chosen = units[:count]
                if groups is not None:
                    chosen = members[np.isin(np.asarray(groups)[members], chosen)]
                in_part[chosen] = True
        if not in_part.any():
            raise DataError("data set: no class has the two images that a split needs")
        return self.subset(np.flatnonzero(~in_part)), self.subset(np.flatnonzero(in_part))


class Subset(Dataset):
    """Some images of another data set, chosen by index."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError("indices: expected one row of whole numbers")
        outside = chosen[(chosen < 0) | (chosen >= len(dataset))]
        if outside.size:
            raise IndexError(f"index {outside[0]} in a data set of {len(dataset)} images")
        self.dataset = dataset
        self.indices = chosen.astype(np.int64)
        self.classes = dataset.classes
        self.labels = dataset.labels[self.indices]
        self.drawn = dataset.drawn
        self.in_memory = dataset.in_memory

    def image(self, index: int) -> np.ndarray:
        return self.dataset.image(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.dataset.name(int(self.indices[index]))

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return self.dataset.gather(self.indices[indices])


class Transformed(Dataset):
    """Another data set with each image changed by `transform(image, rng)`, always in the same way:
    validation images brought to the size that a random crop gives the training images."""

    def __init__(
        self,
        dataset: Dataset,
        transform: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.classes = dataset.classes
        self.labels = dataset.labels
        self.drawn = dataset.drawn

    def image(self, index: int) -> np.ndarray:
        return self.transform(self.dataset.image(index), np.random.default_rng(index))

    def name(self, index: int) -> str:
        return self.dataset.name(index)


class ArrayDataset(Dataset):
    """Images in one uint8 array (N, H, W, C), C = 1 or 3, with whole-number labels (N,).

    Raises DataError for another shape or dtype, unequal lengths, or a label without a class.
    """

    in_memory = True

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int],
        classes: Sequence[str],
        drawn: bool = False,
    ) -> None:
        labels = np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(
                f"images: {images.dtype} array of shape {images.shape}; "
                "expected uint8 (N, H, W, C) with C = 1 or 3"
            )
        if 0 in images.shape:
            raise DataError(f"images: array of shape {images.shape} holds no image")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"labels: {labels.dtype} array of shape {labels.shape}; "
                "expected one row of whole numbers"
            )
        if len(labels) != len(images):
            raise DataError(f"labels: {len(labels)} labels for {len(images)} images")
        outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if outside.size:
            raise DataError(
                f"labels: label {labels[outside[0]]} of image {outside[0]} is out of range; "
                f"expected 0 to {len(classes) - 1} for {len(classes)} classes"
            )
        self.images = images.view()
        self.images.flags.writeable = False
        self.labels = labels.astype(np.int64)
        self.classes = list(classes)
        self.drawn = drawn

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return self.images[indices]


def stack(dataset: Dataset, indices: np.ndarray, images: Iterable[np.ndarray]) -> np.ndarray:
    """`images`, made from those at `indices` of `dataset`, as one array (N, H, W, C).

    Raises DataError naming the first two images whose shapes differ.
    """
    batch: np.ndarray | None = None
    for row, image in enumerate(images):
        if batch is None:
            batch = np.empty((len(indices), *image.shape), dtype=np.uint8)
        elif image.shape != batch.shape[1:]:
            first, other = dataset.name(int(indices[0])), dataset.name(int(indices[row]))
            raise DataError(
                f"{other}: {_shape(image.shape)}, but {first} in the same batch is "
                f"{_shape(batch.shape[1:])}; give `size` to bring all images to one shape"
            )
        batch[row] = image
    if batch is None:
        raise ValueError("a batch of no images")
    return batch


def _shape(shape: tuple[int, ...]) -> str:
    """A shape (H, W, C) as people say it: height x width x channels."""
    return "x".join(map(str, shape))


def check_file(path: PathLike) -> Path:
    """`path`, once it is known to be a file with something in it; DataError says what it is not."""
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is a folder; expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a regular file")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    return path
