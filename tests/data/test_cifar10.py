"""CIFAR-10's binary files, written byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyconv.data.cifar10 import CLASSES, TEST_FILES, TRAIN_FILES, cifar10, find_cifar10
from tinyconv.errors import DataError

CAT, DOG = 3, 5


def record(label: int, seed: int) -> bytes:
    """A label, then red row by row, green and blue: the value depends on seed, colour and place."""
    planes = [
        (seed + 50 * colour + 32 * y + x) % 256
        for colour in range(3)
        for y in range(32)
        for x in range(32)
    ]
    return bytes([label, *planes])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for n, name in enumerate(TRAIN_FILES):
        (tmp_path / name).write_bytes(record(CAT, n) + record(n, 10 + n) + record(DOG, 20 + n))
    (tmp_path / TEST_FILES[0]).write_bytes(b"".join(record(n, 100 + n) for n in range(10)))
    return tmp_path


def test_images_and_labels_in_the_order_of_the_files(root: Path) -> None:
    train = cifar10(root)
    assert train.classes == list(CLASSES)
    assert train.images.shape == (15, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.images.flags.c_contiguous  # as batches are gathered from it
    assert train.labels.tolist() == [3, 0, 5, 3, 1, 5, 3, 2, 5, 3, 3, 5, 3, 4, 5]
    test = cifar10(root, train=False)
    assert test.labels.tolist() == list(range(10))


def test_the_place_of_each_byte(root: Path) -> None:
    image = cifar10(root, train=False).image(7)  # of seed 107
    for y, x, colour in ((0, 0, 0), (0, 31, 0), (31, 0, 1), (4, 9, 2)):
        assert image[y, x, colour] == (107 + 50 * colour + 32 * y + x) % 256


def test_chosen_classes_are_numbered_in_the_order_given(root: Path) -> None:
    train = cifar10(root, classes=("dog", "cat"))
    assert train.classes == ["dog", "cat"]
    # A cat and a dog from every file, and file 3's second record is a cat too.
    assert train.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert [int(image[0, 0, 0]) for image in train.images] == [
        0, 20, 1, 21, 2, 22, 3, 13, 23, 4, 24,
    ]  # fmt: skip
    assert cifar10(root, train=False, classes=["ship"]).labels.tolist() == [0]


@pytest.mark.parametrize("classes", [("cat", "wolf"), (), ("cat", "cat"), ("Cat",)])
def test_classes_that_there_are_not(root: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected some of airplane, .*each once") as error:
        cifar10(root, classes=classes)
    assert repr(classes) in str(error.value)


def test_the_folder_of_the_archive(root: Path, tmp_path: Path) -> None:
    inside = tmp_path / "set" / "cifar-10-batches-bin"
    inside.mkdir(parents=True)
    for name in (*TRAIN_FILES, *TEST_FILES):
        (root / name).rename(inside / name)
    assert find_cifar10(tmp_path / "set")["test"] == [inside / "test_batch.bin"]
    assert len(cifar10(tmp_path / "set")) == 15


def test_a_missing_file(root: Path) -> None:
    (root / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin: no such file; expected the six files"):
        cifar10(root, train=False)
    with pytest.raises(DataError, match="no such file"):
        cifar10(root / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (record(1, 1)[:-1], "3,072 bytes; expected whole records of 3,073"),
        (record(1, 1) + b"\0", "3,074 bytes; expected whole records"),
        (record(1, 1) + record(10, 1), "label 10 of image 1 is out of range; expected 0 to 9"),
    ],
)
def test_a_damaged_file(root: Path, content: bytes, message: str) -> None:
    (root / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: .*" + message):
        cifar10(root)


def test_a_class_without_an_image(root: Path) -> None:
    for name in TRAIN_FILES:
        (root / name).write_bytes(record(CAT, 0))
    with pytest.raises(DataError, match="holds no image"):
        cifar10(root, classes=("ship",))
