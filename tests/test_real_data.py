"""On real photos and digits, where TINYCONV_DATA names the folder that holds them."""

import os
from pathlib import Path

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import functional as F
from tinyconv.data import ImageFolder, Loader, find_splits, list_images, mnist, read_image
from tinyconv.train import Trainer, evaluate

DATA = os.environ.get("TINYCONV_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="TINYCONV_DATA does not name a folder with cats_vs_dogs, mnist, ..."
)


def folder(name):
    path = Path(DATA) / name
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    return path


def test_photos_are_found_and_read():
    train, test = find_splits(folder("cats_vs_dogs"))
    photos = list_images(test)
    assert len(list_images(train)) == 8000
    assert len(photos) == 2000
    for path in photos[::200]:
        assert read_image(path, 32).shape == (32, 32, 3)


def test_horses_are_read_as_a_folder():
    _, validation = find_splits(folder("horse_or_human"))
    dataset = ImageFolder(validation, size=32)
    assert dataset.classes == ["horses", "humans"]
    assert np.bincount(dataset.labels).tolist() == [50, 62]


def test_mnist_is_read():
    dataset = mnist(folder("mnist"), train=True)
    assert dataset.images.shape == (60000, 28, 28, 1)
    # The first ten labels, as anyone who has trained on MNIST remembers them.
    assert dataset.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_a_lenet_learns_real_digits():
    """One pass over a tenth of MNIST; a broken gradient stays far below."""
    tc.manual_seed(0)
    train = mnist(folder("mnist"), train=True).subset(range(6000))
    test = mnist(folder("mnist"), train=False).subset(range(2000))
    model = tc.models.create("lenet_mnist")
    optimizer = tc.optim.Adam(model.parameters(), lr=2e-3)
    trainer = Trainer(model, optimizer, mean=(0.5,), std=(0.5,), loss=F.cross_entropy, quiet=True)
    trainer.fit(Loader(train, 16, shuffle=True, workers=0), epochs=1)
    assert evaluate(model, test, (0.5,), (0.5,)).accuracy >= 0.90
