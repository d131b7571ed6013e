"""The networks of the examples, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tinyconv.models.catdog import catdog, catdog_notebook
from tinyconv.models.catdog_wide import catdog_wide
from tinyconv.models.lenet import lenet_mnist
from tinyconv.nn import Module

_MODELS: dict[str, Callable[..., Module]] = {
    "catdog": catdog,
    "catdog_notebook": catdog_notebook,
    "catdog_wide": catdog_wide,
    "lenet_mnist": lenet_mnist,
}


def names() -> list[str]:
    """The names that create() knows."""
    return sorted(_MODELS)


def create(name: str, **options: Any) -> Module:
    """A new network by name, e.g. create("catdog", num_classes=2, size=96).

    The module's attribute `architecture` holds the name and all options, defaults included, so
    that a saved network can be built again. Raises ValueError for an unknown name, TypeError for an
    unknown option.
    """
    if name not in _MODELS:
        raise ValueError(f"model: {name!r} found, expected one of {', '.join(names())}")
    bound = inspect.signature(_MODELS[name]).bind(**options)
    bound.apply_defaults()
    model = _MODELS[name](**bound.arguments)
    model.architecture = {"name": name, **bound.arguments}
    return model


__all__ = ["catdog", "catdog_notebook", "catdog_wide", "create", "lenet_mnist", "names"]
