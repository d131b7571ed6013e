"""The networks of the examples, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from tinyconv.models.catdog import catdog, catdog_notebook
from tinyconv.models.catdog_wide import catdog_wide
from tinyconv.models.efficientnet_lite0 import efficientnet_lite0
from tinyconv.models.fashion import fashion
from tinyconv.models.horses import horses
from tinyconv.models.lenet import lenet5, lenet_mnist
from tinyconv.models.vgg16 import vgg16
from tinyconv.nn import Module


class Inputs(NamedTuple):
    """What a network is made for: images of `channels` and `size` (height = width, in pixels),
    normalised as (x / 255 - mean) / std."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the statistics of its photos
_GREY = (0.5,), (0.5,)  # brings pixels to [-1, 1]
_TPU = (127 / 255,) * 3, (128 / 255,) * 3  # of the published EfficientNet-Lite weights

_MODELS: dict[str, tuple[Callable[..., Module], Inputs]] = {
    "catdog": (catdog, Inputs(3, 256, *_IMAGENET)),
    "catdog_notebook": (catdog_notebook, Inputs(3, 256, *_IMAGENET)),
    "catdog_wide": (catdog_wide, Inputs(3, 224, *_IMAGENET)),
    "efficientnet_lite0": (efficientnet_lite0, Inputs(3, 224, *_TPU)),
    "fashion": (fashion, Inputs(1, 28, *_GREY)),
    "horses": (horses, Inputs(3, 64, *_IMAGENET)),
    "lenet5": (lenet5, Inputs(1, 32, *_GREY)),
    "lenet_mnist": (lenet_mnist, Inputs(1, 28, *_GREY)),
    "vgg16": (vgg16, Inputs(3, 224, *_IMAGENET)),
}


def names() -> list[str]:
    """The names that create() knows."""
    return sorted(_MODELS)


def inputs(name: str) -> Inputs:
    """The images that network `name` is made for. Raises ValueError for an unknown name."""
    return _entry(name)[1]


def create(name: str, **options: Any) -> Module:
    """A new network by name, e.g. create("catdog", num_classes=2, size=96).

    The module's attribute `architecture` holds the name and all options, defaults included, so
    that a saved network can be built again. Raises ValueError for an unknown name and for numbers
    of classes, channels or pixels that are none, TypeError for an unknown option.
    """
    build = _entry(name)[0]
    bound = inspect.signature(build).bind(**options)
    bound.apply_defaults()
    for option in ("num_classes", "in_channels", "size"):
        value = bound.arguments[option]
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{option} is {value!r}; expected a whole number of 1 or more")
    model = build(**bound.arguments)
    model.architecture = {"name": name, **bound.arguments}
    return model


def _entry(name: str) -> tuple[Callable[..., Module], Inputs]:
    if name not in _MODELS:
        raise ValueError(f"model: {name!r} found, expected one of {', '.join(names())}")
    return _MODELS[name]


__all__ = ["Inputs", "create", "inputs", "names", *_MODELS]
