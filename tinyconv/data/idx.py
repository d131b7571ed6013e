"""idx files, the format of MNIST: a header with dtype and shape, then the numbers.

Format: bytes 0 0, one byte of dtype, one of the number of dimensions n, n sizes as big-endian
uint32, then the numbers, big-endian, last dimension fastest (yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from tinyconv.data.dataset import ArrayDataset, PathLike, check_file
from tinyconv.errors import DataError

MAX_BYTES = 2 * 2**30  # what a header may claim: a few bytes of gzip can unpack to anything

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 2**20


def read_idx(path: PathLike) -> np.ndarray:
    """The array in an idx file, plain or gzipped (told by content), in native byte order.

    Never reads more than the header announces, plus one byte to see that nothing follows.
    Raises DataError for a wrong magic number, a size that does not match the data, a damaged or
    truncated gzip stream, and a header that announces more than MAX_BYTES.
    """
    path = check_file(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not zipped:
                return _read(path, file)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(path, unzipped)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or truncated gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def idx_dataset(
    images_path: PathLike, labels_path: PathLike, classes: Sequence[str] | None = None
) -> ArrayDataset:
    """The data set of two idx files: uint8 images (N, H, W) or (N, H, W, C) and labels (N,).

    Without `classes` the class names are "0" up to the greatest label, at most "255". Raises
    DataError where the files do not fit each other or a label has no class.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if classes is None and labels.size and labels.dtype.kind in "iu":
        classes = [str(n) for n in range(min(int(labels.max()), 255) + 1)]
    try:
        return ArrayDataset(images, labels, classes or [])
    except DataError as error:
        raise DataError(f"{images_path} with {labels_path}: {error}") from error


def mnist(root: PathLike, train: bool = True, classes: Sequence[str] | None = None) -> ArrayDataset:
    """The training or test part of an MNIST-like folder (MNIST, Fashion-MNIST, KMNIST, ...).

    `classes` are "0" to "9" unless given. Raises DataError as `find_mnist` and `idx_dataset` do.
    """
    images_path, labels_path = _find_part(Path(root), "train" if train else "t10k")
    return idx_dataset(images_path, labels_path, classes or [str(n) for n in range(10)])


def find_mnist(root: PathLike) -> dict[str, tuple[Path, Path]]:
    """{"train": (images, labels), "test": (images, labels)}: the four files of an MNIST folder.

    They lie in `root` or in `root`/MNIST/raw, gzipped or not, under their usual names
    (train-images-idx3-ubyte, also train-images.idx3-ubyte). Raises DataError where one is missing.
    """
    return {"train": _find_part(Path(root), "train"), "test": _find_part(Path(root), "t10k")}


def _find_part(root: Path, prefix: str) -> tuple[Path, Path]:
    return _find(root, f"{prefix}-images", "idx3"), _find(root, f"{prefix}-labels", "idx1")


def _find(root: Path, stem: str, kind: str) -> Path:
    for folder in (root, root / "MNIST" / "raw"):
        for name in (f"{stem}-{kind}-ubyte", f"{stem}.{kind}-ubyte"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
    what = "no such file" if root.is_dir() else "no such folder"
    raise DataError(
        f"{root / f'{stem}-{kind}-ubyte'}: {what}, nor with .gz; expected the four files of MNIST: "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte"
    )


def _read(path: Path, stream: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise DataError(
            f"{path}: not an idx file: it starts with bytes {magic.hex(' ') or 'none'}; expected "
            "00 00, one of 08 09 0b 0c 0d 0e, and the number of dimensions"
        )
    dtype, dimensions = np.dtype(_DTYPES[magic[2]]), magic[3]
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(f"{path}: {dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: the header ends before the sizes of {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    if expected == 0:
        raise DataError(f"{path}: the header announces no data (shape {shape})")
    if expected > MAX_BYTES:
        raise DataError(
            f"{path}: the header announces {expected:,} bytes (shape {shape}); at most "
            f"{MAX_BYTES:,} are read"
        )
    data = bytearray()
    while len(data) <= expected:  # in pieces: memory grows with what is there, not with the header
        piece = stream.read(min(_CHUNK, expected + 1 - len(data)))
        if not piece:
            break
        data += piece
    if len(data) != expected:
        held = "more" if len(data) > expected else f"{len(data):,}"
        raise DataError(
            f"{path}: holds {held} bytes of data; its header announces {expected:,} (shape {shape})"
        )
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
