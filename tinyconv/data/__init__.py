"""Images: folders of photos, idx files, drawn pictures, transforms and the loader of batches."""

from tinyconv.data import catalogue
from tinyconv.data.cifar10 import cifar10, find_cifar10
from tinyconv.data.dataset import ArrayDataset, Dataset, Subset, Transformed
from tinyconv.data.drawn import drawn_cats_and_dogs, drawn_digits
from tinyconv.data.folder import ImageFolder, find_splits, list_images
from tinyconv.data.idx import find_mnist, idx_dataset, mnist, read_idx
from tinyconv.data.image import read_image
from tinyconv.data.loader import Batch, Loader
from tinyconv.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    CutMix,
    MixUp,
    Normalize,
    RandomAffine,
    RandomChoice,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    TrivialAugmentWide,
)

__all__ = [
    "ArrayDataset",
    "Batch",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Dataset",
    "ImageFolder",
    "Loader",
    "MixUp",
    "Normalize",
    "RandomAffine",
    "RandomChoice",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "Subset",
    "Transformed",
    "TrivialAugmentWide",
    "catalogue",
    "cifar10",
    "drawn_cats_and_dogs",
    "drawn_digits",
    "find_cifar10",
    "find_mnist",
    "find_splits",
    "idx_dataset",
    "list_images",
    "mnist",
    "read_idx",
    "read_image",
]
