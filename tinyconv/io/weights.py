"""Weights alone, from and for other programs: the file's format is told by its content."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from tinyconv.errors import DataError
from tinyconv.io.keras_file import HDF5_MAGIC, read_keras
from tinyconv.io.pytorch_file import PYTORCH_MAGICS, read_pth
from tinyconv.io.tensor_file import (
    Arrays,
    first_differences,
    first_non_finite,
    read_tensors,
    write_tensors,
)
from tinyconv.nn import Module


class IncompatibleKeys(NamedTuple):
    """What `load_weights` left out: entries that only the network has, or only the file."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_weights(
    model: Module, path: str | os.PathLike[str], strict: bool = True
) -> IncompatibleKeys:
    """Put the arrays of a file, named as in `model.state_dict()`, into the network.

    Takes safetensors (a saved model too), PyTorch's .pth or .pt, and Keras' .h5 of VGG16. Floats
    take the network's dtype, and "module." before all names, as DataParallel puts it, is left out.
    With strict=False, missing and unexpected entries are left out and returned. Raises DataError
    where the file is damaged or where names, shapes or other dtypes differ from the network's, also
    where nothing fits; the network is then unchanged.
    """
    own = model.state_dict()
    state = _cast(_without_module(read_weights(path), own), own)
    if bad := first_non_finite(state):
        raise DataError(f"{path}: {bad} has numbers too large for {state[bad].dtype}")
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    common = {key: state[key] for key in own if key in state}
    compared = (state, own) if strict else (common, {key: own[key] for key in common})
    if (differences := first_differences(*compared)) or not common:
        fit = sum(first_differences({k: common[k]}, {k: own[k]}) == "" for k in common)
        raise DataError(
            f"{path}: does not fit the network: of its {len(own)} entries {fit} fit, "
            f"{len(missing)} are missing and {len(common) - fit} differ; {len(unexpected)} in the "
            f"file are unexpected; {differences or 'no names are the same'}"
        )
    model.load_state_dict(common, strict=False)
    return IncompatibleKeys(missing, unexpected)


def save_weights(path: str | os.PathLike[str], model: Module) -> None:
    """Write `model.state_dict()` to a safetensors file, which PyTorch's users can load, atomically.

    Raises DataError where a weight is NaN or infinite, or the file can not be written.
    """
    write_tensors(path, model.state_dict(), {"format": "weights"})


def read_weights(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of a file of weights, whichever of the formats of `load_weights` it has.

    Raises DataError where the file is missing, damaged or of another format.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        start = b""  # read_tensors says what is wrong
    # Safetensors begin with a length of 8 bytes, which may look like anything, and then JSON.
    if start[8:9] != b"{":
        if start.startswith(PYTORCH_MAGICS):
            return read_pth(path)
        if start.startswith(HDF5_MAGIC):
            return read_keras(path)
    return read_tensors(path)[0]


def _without_module(state: Arrays, own: Arrays) -> Arrays:
    """The names without the "module." that all of them have, and none of the network's."""
    if own.keys() & state.keys() or not all(key.startswith("module.") for key in state):
        return state
    return {key.removeprefix("module."): array for key, array in state.items()}


def _cast(state: Arrays, own: Arrays) -> Arrays:
    """Floats in the dtype that the network has them in, as load_state_dict takes them."""
    cast = dict(state)
    with np.errstate(over="ignore"):
        for key, array in state.items():
            if key in own and array.dtype.kind == own[key].dtype.kind == "f":
                cast[key] = array.astype(own[key].dtype, copy=False)
    return cast
