"""Weights and models in files: written atomically, checked when read, and nothing run from them."""

from tinyconv.io.files import atomic_write
from tinyconv.io.keras_file import read_keras
from tinyconv.io.model_file import ModelCard, load_model, save_model
from tinyconv.io.pytorch_file import read_pth
from tinyconv.io.tensor_file import read_tensors, write_tensors
from tinyconv.io.weights import IncompatibleKeys, load_weights, read_weights, save_weights

__all__ = [
    "IncompatibleKeys",
    "ModelCard",
    "atomic_write",
    "load_model",
    "load_weights",
    "read_keras",
    "read_pth",
    "read_tensors",
    "read_weights",
    "save_model",
    "save_weights",
    "write_tensors",
]
