"""VGG16's weights in the HDF5 files of Keras (.h5), under torchvision's keys."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from tinyconv import models
from tinyconv.errors import DataError
from tinyconv.io.tensor_file import Arrays, first_non_finite

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_KERAS_MEAN = np.array([123.68, 116.779, 103.939])  # of R, G and B, in pixels of 0 to 255

# Each layer's name here, and its kernel (KH, KW, C, O) or matrix (inputs, outputs) in Keras.
_LAYERS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "block1_conv1": ("features.0", (3, 3, 3, 64)),
    "block1_conv2": ("features.2", (3, 3, 64, 64)),
    "block2_conv1": ("features.5", (3, 3, 64, 128)),
    "block2_conv2": ("features.7", (3, 3, 128, 128)),
    "block3_conv1": ("features.10", (3, 3, 128, 256)),
    "block3_conv2": ("features.12", (3, 3, 256, 256)),
    "block3_conv3": ("features.14", (3, 3, 256, 256)),
    "block4_conv1": ("features.17", (3, 3, 256, 512)),
    "block4_conv2": ("features.19", (3, 3, 512, 512)),
    "block4_conv3": ("features.21", (3, 3, 512, 512)),
    "block5_conv1": ("features.24", (3, 3, 512, 512)),
    "block5_conv2": ("features.26", (3, 3, 512, 512)),
    "block5_conv3": ("features.28", (3, 3, 512, 512)),
    "fc1": ("classifier.0", (7 * 7 * 512, 4096)),
    "fc2": ("classifier.3", (4096, 4096)),
    "predictions": ("classifier.6", (4096, None)),  # any number of classes
}
# block1_conv1_W_1:0 in the public files, kernel:0 since Keras 2, kernel since Keras 3
_LEAF = re.compile(r"(?:\w+_(?P<old>[Wb])_\d+|(?P<new>kernel|bias))(?::0)?")
_KINDS = {"W": "weight", "b": "bias", "kernel": "weight", "bias": "bias"}


def read_keras(path: str | os.PathLike[str]) -> Arrays:
    """The float32 arrays of a Keras VGG16 file, as torchvision names and lays them out.

    Takes the public weights with and without the fully connected layers, and what Keras'
    save_weights and save write as .h5 (not .weights.h5). Kernels (KH, KW, C, O) become (O, C, KH,
    KW), matrices are transposed, and the rows of fc1, which Keras numbers by (H, W, C), go by
    (C, H, W).

    Keras' VGG16 expects BGR pixels of 0 to 255 less (103.939, 116.779, 123.68). The first
    convolution is changed so that the network takes RGB images normalised as torchvision's,
    models.inputs("vgg16"), and computes the same; only at the outermost pixels, where a
    convolution's padding means another mean, the first layer sees a difference of half a grey level
    of 255.

    Only plain numbers are read, never a model's configuration. Needs h5py. Raises DataError without
    it, where the file is missing or damaged, holds no VGG16 or another shape than expected, and for
    NaN or infinity.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: reading Keras' files needs h5py: pip install h5py") from error
    arrays: Arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for (layer, kind), dataset in _datasets(file, h5py.Dataset).items():
                name, shape = _LAYERS[layer]
                numbers = _numbers(dataset, shape if kind == "weight" else shape[-1:])
                arrays[f"{name}.{kind}"] = _laid_out(layer, numbers)
        if "features.0.weight" in arrays:
            if "features.0.bias" not in arrays:
                raise ValueError("block1_conv1 has no bias")
            _take_normalized_rgb(arrays)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"{path}: {_one_line(error)}") from error
    if (bad := first_non_finite(arrays)) is not None:
        raise DataError(f"{path}: {bad} holds NaN or infinity")
    return arrays


def _datasets(file: Any, dataset: type) -> dict[tuple[str, str], Any]:
    """The datasets of VGG16's layers, by layer and "weight" or "bias"."""
    found: dict[tuple[str, str], Any] = {}
    others: list[str] = []

    def visit(path: str, item: Any) -> None:
        *groups, leaf = path.split("/")
        layer = next((group for group in reversed(groups) if group in _LAYERS), None)
        match = _LEAF.fullmatch(leaf)
        if not (layer and match and isinstance(item, dataset)):
            others.append(path)
            return
        entry = layer, _KINDS[match["old"] or match["new"]]
        if entry in found:
            raise ValueError(f"holds both {found[entry].name} and /{path}")
        found[entry] = item

    file.visititems(visit)  # which follows no links, so that nothing outside of the file is read
    if not found:
        example = f" but {others[0]!r}" if others else ""
        raise ValueError(f"holds no layers of VGG16 (block1_conv1, ...){example}")
    return found


def _numbers(dataset: Any, expected: tuple[int | None, ...]) -> np.ndarray:
    shape = dataset.shape
    fits = len(shape or ()) == len(expected) and all(
        n in (wanted, wanted or n) for n, wanted in zip(shape, expected, strict=True)
    )
    if not fits or dataset.dtype.kind != "f":
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise ValueError(f"{dataset.name} is {dataset.dtype} {shape}, expected float ({wanted})")
    # Keras stores plainly; what is compressed or left out could claim any size.
    if dataset.external or dataset.is_virtual or dataset.id.get_storage_size() != dataset.nbytes:
        raise ValueError(f"{dataset.name} is not stored as plain numbers")
    return np.asarray(dataset[()], np.float32)


def _laid_out(layer: str, numbers: np.ndarray) -> np.ndarray:
    if numbers.ndim == 4:
        numbers = numbers.transpose(3, 2, 0, 1)
    elif numbers.ndim == 2:
        if layer == "fc1":
            C_H_W = numbers.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3)
            numbers = C_H_W.reshape(numbers.shape)
        numbers = numbers.T
    return np.ascontiguousarray(numbers)


def _take_normalized_rgb(arrays: Arrays) -> None:
    """With n = (x - mean) / std, Keras' input 255 x - m is (255 std) n + (255 mean - m)."""
    mean, std = (255 * np.array(values) for values in models.inputs("vgg16")[2:])
    rgb = arrays["features.0.weight"][:, ::-1].astype(np.float64)
    shift = np.einsum("ocij,c->o", rgb, mean - _KERAS_MEAN)
    arrays["features.0.weight"] = (rgb * std[:, None, None]).astype(np.float32)
    arrays["features.0.bias"] = (arrays["features.0.bias"] + shift).astype(np.float32)


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
