"""What a transform is, and how transforms are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyconv.errors import ShapeError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Settings:
    """Base of the transforms: each holds nothing but the settings that its repr shows."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({shown})"


class ImageTransform(Settings):
    """Base of the transforms of one image, which `apply` changes."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not isinstance(image, np.ndarray):
            raise TypeError(
                f"{self!r}: the image is of type {type(image).__name__}; expected an array"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise ShapeError(
                f"{self!r}: the image is {image.dtype} {image.shape}; expected uint8 (H, W, C), "
                "C = 1 or 3"
            )
        return self.apply(image, rng)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image changed; the one given stays as it is."""
        raise NotImplementedError


class BatchMix(Settings):
    """Base of the mixes, which take a batch and its labels (see mix.py)."""


class Compose:
    """One transform after another. Raises TypeError for a mix, which is for Loader(mix=...)."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        for transform in self.transforms:
            choices = transform.transforms if isinstance(transform, RandomChoice) else [transform]
            for choice in choices:
                if isinstance(choice, BatchMix):
                    raise TypeError(
                        f"Compose: {choice!r} mixes a batch and its labels: give it to "
                        "Loader(mix=...), and to Compose what changes one image"
                    )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class RandomChoice(Settings):
    """One of several transforms, or of several mixes such as MixUp and CutMix.

    `p` are their probabilities, brought to a sum of 1; without it all are equally likely.
    """

    def __init__(
        self, transforms: Sequence[Callable[..., Any]], p: Sequence[float] | None = None
    ) -> None:
        if not transforms:
            raise ValueError("transforms is empty; expected one or more")
        p = [1] * len(transforms) if p is None else p
        if len(p) != len(transforms) or min(p) < 0 or sum(p) <= 0:
            raise ValueError(
                f"p is {p!r}; expected {len(transforms)} probabilities, one for each transform"
            )
        self.transforms = list(transforms)
        self.p = [share / sum(p) for share in p]

    def __call__(self, *inputs: Any) -> Any:
        """inputs: (image, rng), or (images, labels, rng)"""
        rng: np.random.Generator = inputs[-1]
        return self.transforms[rng.choice(len(self.transforms), p=self.p)](*inputs)
