"""Changes of images, under torchvision's names: sizes, crops, geometry, colour, and mixes.

A transform is called with an image (uint8 (H, W, C)) and a NumPy Generator, from which alone it
takes its randomness, and returns a uint8 (H', W', C) image, possibly a view of the one it got.
A mix is called with a batch of images and its labels; see mix.py.
"""

from tinyconv.data.transforms.colour import ColorJitter
from tinyconv.data.transforms.compose import Compose, RandomChoice, Transform
from tinyconv.data.transforms.crop import (
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from tinyconv.data.transforms.erasing import RandomErasing
from tinyconv.data.transforms.geometry import RandomAffine, RandomRotation
from tinyconv.data.transforms.mix import CutMix, Mix, MixUp
from tinyconv.data.transforms.normalize import Normalize
from tinyconv.data.transforms.trivial import TrivialAugmentWide

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Mix",
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
    "Transform",
    "TrivialAugmentWide",
]
