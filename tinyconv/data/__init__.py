"""Images: folders of photos, idx files, drawn pictures, transforms and the loader of batches."""

from tinyconv.data.dataset import ArrayDataset, Dataset, Subset
from tinyconv.data.drawn import drawn_cats_and_dogs, drawn_digits
from tinyconv.data.folder import ImageFolder, find_splits, list_images
from tinyconv.data.idx import find_mnist, idx_dataset, mnist, read_idx
from tinyconv.data.image import read_image
from tinyconv.data.loader import Batch, Loader
from tinyconv.data.transforms import (
    CenterCrop,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)

__all__ = [
    "ArrayDataset",
    "Batch",
    "CenterCrop",
    "Compose",
    "Dataset",
    "ImageFolder",
    "Loader",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Resize",
    "Subset",
    "drawn_cats_and_dogs",
    "drawn_digits",
    "find_mnist",
    "find_splits",
    "idx_dataset",
    "list_images",
    "mnist",
    "read_idx",
    "read_image",
]
