"""Named arrays and a JSON dictionary in one safetensors file, checked when written and when read.

The library `safetensors` holds the format (no code is ever run by reading it); this module adds
atomic writing, a checksum, and the refusal of NaN and infinity.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinyconv.errors import DataError
from tinyconv.io.files import atomic_write

Arrays = dict[str, np.ndarray]
Metadata = dict[str, Any]

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "I64": "int64",
    "I32": "int32",
    "U64": "uint64",
    "U8": "uint8",
    "BOOL": "bool",
}

# safetensors allows only text as metadata: the JSON dictionary and its checksum are two texts.
_JSON, _CHECKSUM = "tinyconv", "tinyconv.crc32"

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive (PyTorch's .pth, NumPy's .npz or Keras' .keras)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras' .h5)"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (b"\x80", "a Python pickle, which can run any program when it is read"),
)


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Metadata
) -> None:
    """Write `arrays` (any shapes; float64, float32, int64, int32, uint64, uint8, bool) and
    `metadata` (anything JSON can hold), atomically.

    Raises DataError for another dtype, for NaN or infinity and where the disk refuses; the file
    that was there stays as it is.
    """
    # The library stores the memory of an array as it lies: a transposed view would come out wrong.
    arrays = {
        name: np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES.values():
            raise DataError(f"{path}: not written: {name} has dtype {array.dtype}")
    if (bad := first_non_finite(arrays)) is not None:
        raise DataError(f"{path}: not written: {bad} holds NaN or infinity")
    text = json.dumps(metadata)
    about = {_JSON: text, _CHECKSUM: _checksum(arrays, text)}
    atomic_write(path, safetensors.numpy.save(arrays, metadata=about))


def read_tensors(path: str | os.PathLike[str]) -> tuple[Arrays, Metadata | None]:
    """The arrays and the metadata of a safetensors file; None where another program wrote it.

    Raises DataError where the file is missing, cut short, damaged, of another format (pickles are
    never read), or holds another dtype than `write_tensors` takes, NaN or infinity.
    """
    if not Path(path).exists():
        raise DataError(f"{path}: no such file")
    if not Path(path).is_file():
        raise DataError(f"{path}: not a file")
    arrays: Arrays = {}
    foreign = []
    try:
        with safetensors.safe_open(path, framework="np") as file:
            texts: dict[str, str] = file.metadata() or {}
            for name in sorted(file.keys()):
                dtype = file.get_slice(name).get_dtype()
                if dtype in _DTYPES:
                    arrays[name] = file.get_tensor(name)
                else:
                    foreign.append(f"{name} has dtype {dtype}")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: {_why_unreadable(Path(path), error)}") from error
    if foreign:
        raise DataError(f"{path}: {foreign[0]}, expected one of {', '.join(_DTYPES)}")
    if (bad := first_non_finite(arrays)) is not None:
        raise DataError(f"{path}: {bad} holds NaN or infinity")
    if _JSON not in texts:
        return arrays, None
    if texts.get(_CHECKSUM) != _checksum(arrays, texts[_JSON]):
        raise DataError(f"{path}: damaged: the content does not match its checksum")
    try:
        metadata = json.loads(texts[_JSON])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: the metadata is {type(metadata).__name__}, expected a dictionary")
    return arrays, metadata


def first_non_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The name of the first array that holds NaN or infinity."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return name
    return None


def first_differences(found: Arrays, expected: Arrays, limit: int = 5) -> str:
    """How two dictionaries of arrays differ in names, shapes and dtypes, in words; "" if not."""
    lines = [f"missing: {name} {_kind(expected[name])}" for name in expected if name not in found]
    lines += [f"unexpected: {name} {_kind(found[name])}" for name in found if name not in expected]
    lines += [
        f"{name} is {_kind(found[name])}, expected {_kind(expected[name])}"
        for name in expected
        if name in found and _kind(found[name]) != _kind(expected[name])
    ]
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "; ".join(lines[:limit] + more)


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> str:
    crc = zlib.crc32(text.encode())
    for name in sorted(arrays):
        crc = zlib.crc32(f"{name} {_kind(arrays[name])}".encode(), crc)
        crc = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _why_unreadable(path: Path, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as unreadable:
        return f"could not be read: {unreadable.strerror}"
    if not start:
        return "the file is empty"
    # The format begins with a length, which may look like any of these, and then its JSON.
    if start[8:] != b"{":
        for magic, name in _FOREIGN:
            if start.startswith(magic):
                return f"this is {name}, expected a safetensors file"
    if len(start) < 9:
        return f"{len(start)} bytes, too short for any known format"
    return f"not a whole safetensors file: {error}"
