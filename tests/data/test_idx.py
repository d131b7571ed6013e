"""idx files written byte by byte, and what must not be read."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from tinyconv.data.idx import MAX_BYTES, find_mnist, idx_dataset, mnist, read_idx
from tinyconv.errors import DataError

CODES = {
    0x08: np.uint8,
    0x09: np.int8,
    0x0B: np.int16,
    0x0C: np.int32,
    0x0D: np.float32,
    0x0E: np.float64,
}


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 0, 9, 1, 1], dtype=np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("code", "dtype"), CODES.items())
def test_every_dtype_big_endian_on_disk_native_in_memory(
    tmp_path: Path, code: int, dtype: type, zipped: bool
) -> None:
    array = np.array([[1, 2, 3], [100, 0, 5]], dtype=dtype)
    if dtype is not np.uint8:
        array[0] *= -1
    data = idx(array, code)
    path = tmp_path / "no-suffix-tells"
    path.write_bytes(gzip.compress(data) if zipped else data)
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (2, 1, 3, 2), (1,) * 6])
def test_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "a").write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)


DATA = idx(IMAGES)
HUGE = b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0", "not an idx file"),
        (b"\x89PNG\r\n\x1a\n", "not an idx file: it starts with bytes 89 50 4e 47"),
        (b"\0\0\x0a\x03" + DATA[4:], "not an idx file"),
        (b"\0\x01" + DATA[2:], "not an idx file"),
        (b"\0\0\x08\x00" + DATA[4:], "0 dimensions"),
        (b"\0\0\x08\xff" + bytes(2000), "255 dimensions"),
        (DATA[:10], "header ends before the sizes of 3 dimensions"),
        (DATA[:-1], "holds 59 bytes of data; its header announces 60"),
        (DATA[:16], "holds 0 bytes"),
        (DATA + b"\0", "holds more bytes"),
        (b"\0\0\x08\x02" + struct.pack(">2I", 0, 5), "announces no data"),
        (HUGE + DATA, "at most"),
        (b"\0\0\x08\x01" + struct.pack(">I", MAX_BYTES + 1), "at most"),
        (b"\0\0\x08\x01" + struct.pack(">I", MAX_BYTES) + b"abc", "holds 3 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, message: str, zipped: bool) -> None:
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(data) if zipped else data)
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert peak < 8 * 2**20  # whatever the header claims


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)
    good = gzip.compress(idx(noise))
    wrong_crc = bytearray(good)
    wrong_crc[-8] ^= 1
    broken_block = bytearray(gzip.compress(DATA, 9))
    broken_block[12:20] = b"\xff" * 8
    for data in (good[:1000], good[:-3], good[:2], wrong_crc, broken_block, good + b"garbage"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.gz: .*gzip"):
            read_idx(path)


def test_a_gzip_bomb_is_read_no_further_than_its_header(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(idx(IMAGES)) + b"".join(
        packer.compress(bytes(2**20)) for _ in range(200)
    )
    path = tmp_path / "bomb.gz"
    path.write_bytes(bomb + packer.flush())
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    with pytest.raises(DataError, match="holds more bytes of data; its header announces 60"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, message in [("empty", "empty"), ("none", "no such file"), (".", "is a folder")]:
        with pytest.raises(DataError, match=message):
            read_idx(tmp_path / name)


def write_pair(folder: Path, images: np.ndarray, labels: np.ndarray) -> tuple[Path, Path]:
    (folder / "images").write_bytes(idx(images))
    (folder / "labels").write_bytes(idx(labels))
    return folder / "images", folder / "labels"


def test_idx_dataset(tmp_path: Path) -> None:
    dataset = idx_dataset(*write_pair(tmp_path, IMAGES, LABELS))
    assert dataset.classes == [str(n) for n in range(10)]
    assert dataset.labels.tolist() == [3, 0, 9, 1, 1]
    np.testing.assert_array_equal(dataset.images, IMAGES[..., None])
    named = idx_dataset(*write_pair(tmp_path, IMAGES, LABELS % 2), classes=["even", "odd"])
    assert named.classes == ["even", "odd"]
    colour = np.zeros((5, 4, 2, 3), dtype=np.uint8)
    assert idx_dataset(*write_pair(tmp_path, colour, LABELS)).image(0).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:4], "4 labels for 5 images"),
        (IMAGES[0], LABELS, "expected uint8"),
        (IMAGES, IMAGES, "one row of whole numbers"),
        (IMAGES, LABELS + 1, "label 10 of image 2 is out of range; expected 0 to 9"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    paths = write_pair(tmp_path, images, labels)
    with pytest.raises(DataError, match=message) as caught:
        idx_dataset(*paths, classes=[str(n) for n in range(10)])
    assert str(caught.value).startswith(f"{paths[0]} with {paths[1]}: ")


def test_a_huge_label_does_not_make_huge_class_lists(tmp_path: Path) -> None:
    images, labels = write_pair(tmp_path, IMAGES, LABELS)
    labels.write_bytes(idx(np.array([1, 2, 3, 4, 2**31 - 1], dtype=np.int32), 0x0C))
    with pytest.raises(DataError, match="label 2147483647 of image 4 is out of range"):
        idx_dataset(images, labels)


def write_mnist(folder: Path, separator: str = "-", zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 5), ("t10k", 3)):
        for kind, array in (("images-idx3", IMAGES[:count]), ("labels-idx1", LABELS[:count])):
            name = f"{prefix}-{kind}-ubyte".replace("-idx", f"{separator}idx")
            data = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / (name + ".gz" * zipped)).write_bytes(data)


@pytest.mark.parametrize("inside", [".", "MNIST/raw"])
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(tmp_path: Path, inside: str, separator: str, zipped: bool) -> None:
    write_mnist(tmp_path / inside, separator, zipped)
    assert (len(mnist(tmp_path)), len(mnist(tmp_path, train=False))) == (5, 3)
    assert mnist(tmp_path, train=False).classes == [str(n) for n in range(10)]
    np.testing.assert_array_equal(mnist(tmp_path).image(1)[:, :, 0], IMAGES[1])
    assert find_mnist(tmp_path)["test"][1].name.startswith("t10k-labels")


def test_mnist_files_that_are_missing(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: no such file, nor with \.gz"):
        mnist(tmp_path, train=False)
    assert len(mnist(tmp_path)) > 0  # the training part is whole
    with pytest.raises(DataError, match="no such folder"):
        find_mnist(tmp_path / "nowhere")
