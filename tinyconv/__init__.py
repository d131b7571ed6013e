"""tinyconv: a convolutional-network engine written from scratch in Python, to read and to use."""

from __future__ import annotations

import importlib
from typing import Any

from tinyconv import functional, nn, optim
from tinyconv.backend import backend_name, manual_seed, synchronize, to_numpy, use_backend
from tinyconv.errors import BackendError, DataError, ShapeError
from tinyconv.op import which
from tinyconv.ops.window import conv_output_size
from tinyconv.tensor import Tensor, no_grad

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "DataError",
    "ShapeError",
    "Tensor",
    "backend_name",
    "compile",
    "conv_output_size",
    "data",
    "functional",
    "io",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "optim",
    "summary",
    "synchronize",
    "testing",
    "to_numpy",
    "train",
    "use_backend",
    "visualize",
    "which",
]

_LOADED_WHEN_USED = ("data", "io", "models", "testing", "train", "visualize")


def __getattr__(name: str) -> Any:
    if name == "compile":
        return importlib.import_module("tinyconv.compiler").compile
    if name == "summary":
        return importlib.import_module("tinyconv.model_summary").summary
    if name in _LOADED_WHEN_USED:
        return importlib.import_module(f"tinyconv.{name}")
    raise AttributeError(f"module 'tinyconv' has no attribute {name!r}")
