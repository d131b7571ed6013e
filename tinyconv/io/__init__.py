"""Weights and models in files: safetensors, written atomically, checked when read."""

from tinyconv.io.files import atomic_write
from tinyconv.io.model_file import ModelCard, load_model, load_weights, save_model
from tinyconv.io.tensor_file import read_tensors, write_tensors

__all__ = [
    "ModelCard",
    "atomic_write",
    "load_model",
    "load_weights",
    "read_tensors",
    "save_model",
    "write_tensors",
]
