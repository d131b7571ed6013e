"""Weights in PyTorch's files (.pth, .pt), read without PyTorch and without running what they name.

A file is a pickle of the state dictionary, in which each tensor refers to a storage: numbers of one
dtype, which lie beside the pickle. Since PyTorch 1.6 it is a zip archive (`data.pkl`, `data/0`,
`data/1`, ...), before that five pickles and the storages one after another. Source of both: the
functions _save and _legacy_save in torch/serialization.py.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from tinyconv.errors import DataError
from tinyconv.io.restricted_pickle import Functions, Name, Refused, set_items, unpickle
from tinyconv.io.tensor_file import Arrays, first_non_finite

ZIP_MAGIC = b"PK\x03\x04"
PYTORCH_MAGICS = (ZIP_MAGIC, b"\x80")  # the latter begins any pickle
_LEGACY_NUMBER = 0x1950A86A20F9469CFC6C  # the first of the older format's pickles

# The storage's class in torch, and how its numbers lie in the file.
_STORAGES = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "u2",  # the upper half of a float32
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
_MOST_AXES = 32
# Tensors may share a storage, and so a small file could ask for arrays without end: together they
# take at most this multiple of the file, or this many bytes.
_MOST_TIMES, _MOST_BYTES = 16, 64 << 20


@dataclass(frozen=True)
class _Storage:
    """`count` numbers of one dtype, beside the pickle under the name `key`."""

    kind: str
    key: str
    count: int

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype(order + _STORAGES[self.kind])


@dataclass(frozen=True)
class _Tensor:
    """The numbers storage[offset + sum of index * stride], for indices below size."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


Read = Callable[[_Storage], np.ndarray]


def read_pth(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of a state dictionary that `torch.save` wrote, by their keys, in its order.

    Takes both formats, and a checkpoint that holds exactly one state dictionary beside other things
    ({"state_dict": ..., "epoch": 3}). float16 and bfloat16 become float32; other dtypes stay. Views
    of one storage may share their memory here too. Raises DataError where the file is missing,
    damaged or of another format, where its pickle asks for anything but tensors, containers, texts
    and numbers (nothing of it is run), and for NaN or infinity.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(ZIP_MAGIC))
            file.seek(0)
            if not start.startswith(PYTORCH_MAGICS):
                raise Refused("not a PyTorch file: neither a zip archive nor a pickle")
            arrays = _read_zip(file) if start == ZIP_MAGIC else _read_legacy(file)
    except OSError as error:
        raise DataError(f"{path}: could not be read: {error.strerror or error}") from error
    except Refused as error:
        raise DataError(f"{path}: {error}") from error
    if (bad := first_non_finite(arrays)) is not None:
        raise DataError(f"{path}: {bad} holds NaN or infinity")
    return arrays


# The two formats ----------------------------------------------------------------------------------


def _read_zip(file: BinaryIO) -> Arrays:
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, os.fstat(file.fileno()).st_size)
    except Refused:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Refused(f"damaged zip archive: {error}") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Arrays:
    # Compressed members, which PyTorch never writes, could be far larger than the file.
    if any(member.compress_type for member in archive.infolist()):
        raise Refused("not PyTorch's zip archive: it has compressed members")
    names = set(archive.namelist())
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("not PyTorch's zip archive: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    content, _ = _load(BytesIO(archive.read(pickles[0])))
    order = "<"
    if f"{folder}byteorder" in names:  # PyTorch writes it since 2.1
        order = _order(archive.read(f"{folder}byteorder") == b"little")

    def read(storage: _Storage) -> np.ndarray:
        name, dtype = f"{folder}data/{storage.key}", storage.dtype(order)
        if name not in names:
            raise Refused(f"storage {storage.key!r} is missing")
        if archive.getinfo(name).file_size != storage.count * dtype.itemsize:
            raise Refused(
                f"storage {storage.key!r} has {archive.getinfo(name).file_size} bytes, "
                f"expected {storage.count} of {dtype.name}"
            )
        return np.frombuffer(bytearray(archive.read(name)), dtype)

    return _arrays(_state(content), read, size)


def _read_legacy(file: BinaryIO) -> Arrays:
    if _load(file)[0] != _LEGACY_NUMBER:
        raise Refused("this is a pickle, but not one of PyTorch's")
    (version, _), (system, _) = _load(file), _load(file)
    if version != 1001 or not isinstance(system, dict):
        raise Refused("damaged: expected version 1001 of the format")
    order = _order(system.get("little_endian") is not False)
    content, storages = _load(file)
    keys, _ = _load(file)
    if not isinstance(keys, list) or set(map(type, keys)) - {str} or set(keys) != set(storages):
        raise Refused("damaged: the list of storages is not that of the tensors")
    size = os.fstat(file.fileno()).st_size
    places = {}
    for key in keys:
        storage = storages[key]
        header = file.read(8)
        if len(header) != 8 or struct.unpack(f"{order}q", header)[0] != storage.count:
            raise Refused(f"damaged or cut short at storage {key!r}")
        places[key] = file.tell()
        end = places[key] + storage.count * storage.dtype(order).itemsize
        if end > size:
            raise Refused(f"cut short: {size} bytes, and storage {key!r} ends at {end}")
        file.seek(end)

    def read(storage: _Storage) -> np.ndarray:
        file.seek(places[storage.key])
        return np.fromfile(file, storage.dtype(order), storage.count)

    return _arrays(_state(content), read, size)


def _order(little_endian: bool) -> str:
    return "<" if little_endian else ">"


# The pickle ---------------------------------------------------------------------------------------


def _load(file: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """The object of a pickle, with a _Tensor for each tensor, and all storages that it names."""
    storages: dict[str, _Storage] = {}

    def persistent(reference: Any) -> _Storage:
        # ("storage", class, key, device, count), in the older format with a view that is None
        if not (
            isinstance(reference, tuple)
            and len(reference) in (5, 6)
            and reference[0] == "storage"
            and isinstance(reference[1], Name)
            and reference[1].text in _STORAGES
            and isinstance(reference[2], str)
            and len(reference[2]) < 80
            and _is_count(reference[4])
            and reference[5:] in ((), (None,))
        ):
            raise Refused("has a reference to something that is no storage")
        storage = _Storage(reference[1].text, reference[2], reference[4])
        if storages.setdefault(storage.key, storage) != storage:
            raise Refused(f"damaged: storage {storage.key!r} has two dtypes or sizes")
        return storage

    return unpickle(file, _FUNCTIONS, persistent), storages


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    # What follows is whether it needs a gradient, and hooks.
    if not (
        isinstance(storage, _Storage)
        and _is_count(offset)
        and all(isinstance(x, tuple) and all(map(_is_count, x)) for x in (size, stride))
        and len(size) == len(stride) <= _MOST_AXES
    ):
        raise Refused("damaged: a tensor without a valid storage, offset, size or stride")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.count:
        raise Refused(
            f"damaged: a tensor of size {size}, stride {stride} and offset {offset} "
            f"reaches past the {storage.count} numbers of its storage"
        )
    return _Tensor(storage, offset, size, stride)


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise Refused("damaged: a parameter that holds no tensor")
    return tensor


def _ordered_dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    ordered: dict[Any, Any] = {}
    set_items(ordered, items)
    return ordered


_FUNCTIONS: Functions = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,  # before PyTorch 0.4
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.4
    **dict.fromkeys(_STORAGES),
}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


# From the pickle's object to arrays ---------------------------------------------------------------


def _state(content: Any) -> dict[str, _Tensor]:
    """The only dictionary of tensors: the object itself, or one of its entries."""
    if _is_state(content):
        return content
    if not isinstance(content, dict):
        raise Refused(f"holds a {_kind(content)}, expected a state dictionary")
    found = [key for key, value in content.items() if _is_state(value)]
    if len(found) != 1:
        what = f"{len(found)} state dictionaries ({_first(found)})" if found else "no dictionary"
        entries = _first([f"{key}: {_kind(value)}" for key, value in content.items()])
        raise Refused(f"holds {what} of tensors only, expected one; entries: {entries}")
    return content[found[0]]


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value != {}
        and all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in value.items())
    )


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, _Tensor) else type(value).__name__


def _first(items: list[Any]) -> str:
    return ", ".join(ascii(str(item)[:40])[1:-1] for item in items[:5]) + ", ..." * (len(items) > 5)


def _arrays(state: dict[str, _Tensor], read: Read, file_size: int) -> Arrays:
    used = {tensor.storage for tensor in state.values()}
    counts = [s.count for s in used] + [math.prod(t.size) for t in state.values()]
    if 8 * sum(counts) > max(_MOST_TIMES * file_size, _MOST_BYTES):
        raise Refused(f"its tensors claim far more numbers than its {file_size} bytes hold")
    storages = {storage: _native(storage, read(storage)) for storage in used}
    return {key: _array(tensor, storages[tensor.storage]) for key, tensor in state.items()}


def _native(storage: _Storage, numbers: np.ndarray) -> np.ndarray:
    """In the machine's byte order; 16-bit floats as float32, which holds each of them exactly."""
    if storage.kind == "torch.BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    if storage.kind == "torch.HalfStorage":
        return numbers.astype(np.float32)
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    strides = [step * numbers.itemsize for step in tensor.stride]
    if 0 in tensor.size:
        return np.empty(tensor.size, numbers.dtype)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides)
    return np.ascontiguousarray(view).reshape(tensor.size)  # which makes (1,) of ()
